"""A small Django project, served by real servers and called by Django's test clients."""
