"""Test tools: what is of use in the tests of others, and never in the app itself."""
