"""Configuration of the documentation.

Set ``CAUSALFAIR_DOCS_OFFLINE=1`` to build without the inventories of other projects, ``0`` to
insist on them; by default they are used where the network can be reached.
"""

from __future__ import annotations

import os
import socket
import sys
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))

from sphinx_gallery.sorting import ExplicitOrder  # noqa: E402

import causalfair  # noqa: E402

project = "causalfair"
author = "The causalfair developers"
copyright = "2026, the causalfair developers"
version = release = causalfair.__version__

extensions = [
    "generated_pages",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.mathjax",
    # Formulas that need no network to be read.
    *(["sphinx-mathjax-offline"] if find_spec("sphinx-mathjax-offline") else []),
    "sphinx.ext.viewcode",
    "numpydoc",
    "sphinx_gallery.gen_gallery",
    "sphinxcontrib.bibtex",
    "sphinx_design",
    "sphinx_copybutton",
]
exclude_patterns = ["_build", "_templates", "_data"]
templates_path = ["_templates"]
nitpicky = True

# API reference -------------------------------------------------------------------------------
autosummary_generate = True
autodoc_typehints = "none"
autodoc_member_order = "bysource"
autodoc_default_options = {
    "exclude-members": "set_fit_request, set_predict_request, set_predict_proba_request, "
    "set_score_request, set_transform_request, set_inverse_transform_request, "
    "get_metadata_routing, get_params, set_params, set_output",
}
toc_object_entries_show_parents = "hide"
# References at the end of a docstring need not be numbered in its text.
suppress_warnings = ["ref.citation"]
numpydoc_show_class_members = False
numpydoc_xref_param_type = False
python_use_unqualified_type_names = True

# Other projects ------------------------------------------------------------------------------


def unreachable(host: str) -> bool:
    """Say whether a host cannot be reached within a few seconds."""
    try:
        socket.create_connection((host, 443), timeout=5).close()
    except OSError:
        return True
    return False


SETTING = os.environ.get("CAUSALFAIR_DOCS_OFFLINE", "")
OFFLINE = SETTING == "1" or (SETTING != "0" and unreachable("docs.python.org"))
intersphinx_timeout = 10
intersphinx_mapping = (
    {}
    if OFFLINE
    else {
        "python": ("https://docs.python.org/3", None),
        "numpy": ("https://numpy.org/doc/stable", None),
        "scipy": ("https://docs.scipy.org/doc/scipy", None),
        "pandas": ("https://pandas.pydata.org/docs", None),
        "sklearn": ("https://scikit-learn.org/stable", None),
        "matplotlib": ("https://matplotlib.org/stable", None),
    }
)
# What other projects document is checked when their inventories are at hand, never required.
nitpick_ignore_regex = [
    (r"py:.*", rf"{name}(\..*)?")
    for name in (
        "numpy",
        "np",
        "scipy",
        "pandas",
        "pd",
        "polars",
        "pyarrow",
        "sklearn",
        "matplotlib",
        "joblib",
        "numba",
        "pymc",
        "arviz",
        "xarray",
        "zarr",
        "dask",
        "torch",
        "statsmodels",
        "formulaic",
        "narwhals",
        "collections",
        "pathlib",
    )
] + [(r"py:.*", r"[A-Za-z]*(Error|Warning)|BaseEstimator|ValueError|dict|list|tuple|float|int|str")]

# Bibliography --------------------------------------------------------------------------------
bibtex_bibfiles = [str((HERE.parent / "causalfair" / "references.bib").resolve())]
bibtex_default_style = "unsrt"
bibtex_reference_style = "author_year"

# Examples ------------------------------------------------------------------------------------
FAMILIES = ("iv", "forest", "imagery", "reward", "fairness", "risk", "adaptive")
# These examples need a file that may not be distributed; without it they are shown, not run.
NEEDED = {
    "uganda": "uganda_youth_programme.npz",
    "upworthy": "upworthy_development_half.parquet",
}
DATA = Path(os.environ.get("CAUSALFAIR_DATA", "."))
LACKING = "|".join(name for name, file in NEEDED.items() if not (DATA / file).is_file())

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "subsection_order": ExplicitOrder([*(f"../examples/{name}" for name in FAMILIES), "*"]),
    "gallery_dirs": "auto_examples",
    "filename_pattern": r"[\\/]plot_" + (f"(?!{LACKING})" if LACKING else ""),
    "ignore_pattern": r"^(demo_|__init__)",
    "download_all_examples": False,
    "remove_config_comments": True,
    "default_thumb_file": str(HERE / "_static" / "thumbnail.svg"),
    "show_memory": False,
    "plot_gallery": os.environ.get("CAUSALFAIR_DOCS_GALLERY", "1") == "1",
    # An example that fails fails the build; the others are still run and shown.
    "abort_on_example_error": False,
    "copyfile_regex": r".*\.rst",
}

# Look ----------------------------------------------------------------------------------------
html_theme = "pydata_sphinx_theme"
html_title = "causalfair"
html_static_path = ["_static"]
html_css_files = ["causalfair.css"]
html_show_sourcelink = False
html_theme_options = {
    "show_prev_next": False,
    "navbar_align": "left",
    "header_links_before_dropdown": 7,
    "show_toc_level": 2,
    "footer_start": ["copyright"],
    "footer_end": [],
    "pygments_light_style": "tango",
    "pygments_dark_style": "github-dark",
}
html_sidebars = {"index": [], "install": [], "cite": [], "references": [], "validation": []}
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
copybutton_exclude = ".linenos, .gp, .go"
