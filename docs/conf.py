"""How the site is made: ``python -m sphinx -W --keep-going docs docs/_build/html``.

Decisions:
a) The lesson and the guides are scripts, run when the site is built: what they print and draw is
   what the version at hand does. Where an optional package is missing, its page is shown unrun.
b) Every page of docs/ that is Markdown is included; those that stand in no list of index.md are
   found by its glob.
c) The reference is made of docstrings. Links inside are checked twice: cross-references by Sphinx,
   and what became of them in the HTML by `_links.py`.
"""

import importlib.util
import os
import sys
from pathlib import Path

import fastlstm

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))  # _site
os.environ.setdefault("OMP_NUM_THREADS", "1")  # NumPy beside us: no second pool of threads

project = "fastlstm"
author = "the developers of fastlstm"
project_copyright = author
version = release = fastlstm.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "myst_parser",
    "sphinx_gallery.gen_gallery",
    "_site",
]
exclude_patterns = ["_build"]
templates_path = ["_templates"]

# --- Markdown
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

# --- the API, from docstrings
autosummary_generate = True
autodoc_typehints = "none"  # numpydoc's sections have the types, in words
autodoc_preserve_defaults = True
numpydoc_show_class_members = False  # they stand in full below their class

# --- scripts
WANTS = {"pytorch_swap": ["torch"], "time_series": ["pandas"]}  # beside Matplotlib
UNRUN = [
    name
    for name, modules in WANTS.items()
    if not all(importlib.util.find_spec(module) for module in modules)
]
sphinx_gallery_conf = {
    "examples_dirs": ["../examples/lesson", "../examples/guides"],
    "gallery_dirs": ["lesson", "guides"],
    "filename_pattern": rf"^(?!.*({'|'.join(UNRUN) or '-'})).*\.py$",
    "within_subsection_order": "FileNameSortKey",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "remove_config_comments": True,
    "default_thumb_file": str(HERE / "_static" / "code.svg"),  # of scripts without a picture
    "min_reported_time": 1e9,
    "show_memory": False,
    "show_signature": False,
    "image_srcset": ["2x"],
    "reset_modules": ("matplotlib", "_site.style"),
    "write_computation_times": False,
    "capture_repr": (),
    "nested_sections": False,
}

# --- how it looks
html_theme = "pydata_sphinx_theme"
html_math_renderer = "mathml"
html_title = "fastlstm"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "header_links_before_dropdown": 5,
    "navbar_align": "left",
    "show_prev_next": True,
    "show_nav_level": 1,
    "navigation_with_keys": False,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
}
# pages that stand alone have nothing to show at their side
ALONE = ("index", "design", "export", "features", "forecasting", "long-lag")
html_sidebars = {name: [] for name in ALONE}
