"""Settings of Sphinx, which builds the documentation: make docs."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
SOURCE = (ROOT / "asgi_bg" / "__init__.py").read_text()

project = "asgi_bg"
author = "The asgi_bg maintainers"
version = release = re.findall(r'__version__ = "(.*)"', SOURCE)[0]

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]
myst_heading_anchors = 4
# Links to files of the repository are for who reads the pages there.
myst_enable_extensions = ["attrs_inline"]
suppress_warnings = ["myst.xref_missing"]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True, "show-inheritance": False}
napoleon_google_docstring = True
napoleon_use_ivar = True
default_role = "code"
python_display_short_literal_types = True

html_theme = "furo"
html_title = f"asgi_bg {release}"
html_copy_source = False
html_show_copyright = False
html_show_sphinx = False
