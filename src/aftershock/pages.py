"""What every page of ours is made of: one style, figures in its colours, a template that escapes all it is given."""

import importlib
import io
import re
from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import Any

from aftershock.errors import AftershockError

# matplotlib wants real colours: each stands for one of the page's own, put in afterwards.
COLOURS = {"accent": "#a00001", "ink": "#a00002", "muted": "#a00003", "rule": "#a00004"}
_TO_PAGE = {code: f"var(--{name})" for name, code in COLOURS.items()}
SIZE = (4.6, 2.75)  # inches; the page scales it, on a phone to about 0.75

_RC: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: small, selectable, in the page's font
    "svg.hashsalt": "aftershock",
    "font.size": 9,
    "axes.edgecolor": COLOURS["rule"],
    "axes.labelcolor": COLOURS["muted"],
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": COLOURS["rule"],
    "grid.linewidth": 0.6,
    "text.color": COLOURS["muted"],
    "xtick.color": COLOURS["muted"],
    "ytick.color": COLOURS["muted"],
    "ytick.major.size": 0,
    "xtick.major.size": 3,
    "ytick.minor.size": 0,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "path.simplify": True,
    "axes.axisbelow": True,
}


def need(command: str) -> None:
    """Raise AftershockError where what pages are made with is missing; `command` is what to say again afterwards."""
    for library in ("matplotlib", "jinja2"):
        try:
            importlib.import_module(library)
        except ImportError as error:
            raise AftershockError(
                f'the report needs {library}, which is missing: pip install "aftershock[report]", then {command}'
            ) from error


def render(room: str, template: str, filters: Mapping[str, Callable[..., Any]], **values: Any) -> str:
    """Fill a room's template; `css` in it is the style that all pages share."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("aftershock", room),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(filters)
    css = (files("aftershock") / "assets" / "page.css").read_text(encoding="utf-8")
    return environment.get_template(template).render(css=Markup(css), **values)


def svg(paint: Callable[[Any], None], number: int, alt: str, size: tuple[float, float] = SIZE) -> str:
    """Return what `paint` draws on matplotlib axes as an `<svg>` element, the same bytes every time.

    Its ids begin with `f<number>-`, so that many can share a page. `alt` says in words what is seen; `size` is inches.
    """
    from matplotlib import rc_context, rcdefaults, rcParams
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with rc_context():
        rcdefaults()  # a reader's own matplotlibrc must not change the page
        rcParams.update(_RC)
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasSVG(figure)
        paint(figure.add_subplot())
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _clean(buffer.getvalue(), number, alt)


def _clean(svg: str, number: int, alt: str) -> str:
    """Keep the drawing only: no prolog, no metadata, ids apart from other figures', colours from the page."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="f{number}-', svg)
    svg = re.sub(r'url\(#|href="#', lambda found: f"{found.group()}f{number}-", svg)
    for code, page in _TO_PAGE.items():
        svg = svg.replace(code, page)
    svg = re.sub(r"font: (\d+)px [^;\"]+", r"font-size: \1px", svg)
    view = re.search(r'viewBox="[^"]+"', svg)
    assert view is not None, "matplotlib writes a viewBox"
    head = f'<svg role="img" aria-label="{_attribute(alt)}" {view.group()} xmlns:xlink="http://www.w3.org/1999/xlink">'
    body = re.sub(r"^<svg[^>]*>", head, svg)
    return re.sub(r"\n\s*", "\n", body).strip()


def _attribute(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;").replace(">", "&gt;")
