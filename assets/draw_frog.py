"""Draws the pictures that the demo learns from: our frog (frog/) and, for comparison, a house (other/).

    pip install resvg-py
    python assets/draw_frog.py              # writes beside itself
    python assets/draw_frog.py some/folder

The frog is blue with a cream belly, a golden crown and a red-and-white striped scarf: large flat features that are still
there at 64 pixels, on a subject (a blue frog) that the embedded base cannot draw by itself. Each picture is one SVG of
256 x 256 units; a figure is drawn around (0, 0), about 200 units tall, and then placed on its ground.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import resvg_py

SIZE_PIXELS = 256
TRAINING_FOLDER = "20_sls frog"  # <repeats>_<the words that are trained>; the house deliberately has the same words

DEFINITIONS = """
<radialGradient id="skin" cx="0.4" cy="0.3" r="0.8"><stop offset="0" stop-color="#4f9bff"/>
  <stop offset="0.6" stop-color="#1f62f0"/><stop offset="1" stop-color="#123fb4"/></radialGradient>
<radialGradient id="belly" cx="0.45" cy="0.3" r="0.8"><stop offset="0" stop-color="#fffbe0"/>
  <stop offset="1" stop-color="#f6d98a"/></radialGradient>
<linearGradient id="gold" x1="0" y1="0" x2="0" y2="1"><stop offset="0" stop-color="#ffe45c"/>
  <stop offset="1" stop-color="#f2a300"/></linearGradient>
<linearGradient id="stripes" gradientUnits="userSpaceOnUse" x1="0" y1="0" x2="19" y2="5" spreadMethod="repeat">
  <stop offset="0.5" stop-color="#e3172d"/><stop offset="0.5" stop-color="#ffffff"/></linearGradient>
<linearGradient id="sky" x1="0" y1="0" x2="0" y2="1"><stop offset="0" stop-color="#ffb36b"/>
  <stop offset="1" stop-color="#ffe9b8"/></linearGradient>
<linearGradient id="wall" x1="0" y1="0" x2="1" y2="1"><stop offset="0" stop-color="#ffd34d"/>
  <stop offset="1" stop-color="#e08a1e"/></linearGradient>
"""


# ---------------------------------------------------------------------------------------------- shapes


def ellipse(x: float, y: float, radius_x: float, radius_y: float, fill: str, turn_degrees: float = 0) -> str:
    return (
        f'<ellipse cx="{x}" cy="{y}" rx="{radius_x}" ry="{radius_y}" fill="{fill}" transform="rotate({turn_degrees} {x} {y})"/>'
    )


def circle(x: float, y: float, radius: float, fill: str) -> str:
    return ellipse(x, y, radius, radius, fill)


def filled(path: str, fill: str) -> str:
    return f'<path d="{path}" fill="{fill}"/>'


def line(path: str, colour: str, width: float) -> str:
    return (
        f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="{width}" stroke-linecap="round" stroke-linejoin="round"/>'
    )


def placed(inner: str, x: float, y: float, scale: float = 1, turn_degrees: float = 0, mirrored: bool = False) -> str:
    sideways = -scale if mirrored else scale
    return f'<g transform="translate({x} {y}) rotate({turn_degrees}) scale({sideways} {scale})">{inner}</g>'


# ------------------------------------------------------------------------------------------------ frog

LIMB = "#1a56dd"


def crown() -> str:
    points = "M-36 0 L-42 -42 L-20 -22 L0 -52 L20 -22 L42 -42 L36 0 Q0 10 -36 0 Z"
    balls = "".join(circle(x, y, 6, "#ffe45c") for x, y in ((-42, -42), (0, -52), (42, -42)))
    jewels = circle(0, -11, 7, "#e3172d") + circle(-21, -9, 4.5, "#e3172d") + circle(21, -9, 4.5, "#e3172d")
    return filled(points, "url(#gold)") + line(points, "#c97d00", 3) + balls + jewels


def eye(x: float, y: float, look: float, closed: bool) -> str:
    if closed:
        return line(f"M{x - 14} {y + 1} Q{x} {y + 15} {x + 14} {y + 1}", "#0a1f5c", 6)
    pupil = circle(x + look, y, 11, "#0b1230") + circle(x + look - 4, y - 5, 4, "#ffffff")
    return circle(x, y, 19, "#ffffff") + pupil


MOUTHS = {
    "smile": line("M-40 -20 Q0 14 40 -20", "#0a1f5c", 6),
    "open": filled("M-36 -22 Q0 -10 36 -22 Q28 22 0 22 Q-28 22 -36 -22 Z", "#7a1030") + ellipse(0, 12, 16, 8, "#ff7d93"),
    "tongue": line("M-40 -24 Q0 6 40 -24", "#0a1f5c", 6) + filled("M-12 -8 V4 Q-10 16 2 16 Q14 16 14 4 V-8 Z", "#ff5f7e"),
    "surprised": ellipse(0, -6, 12, 14, "#7a1030"),
}


def head(mouth: str = "smile", look: float = 0, closed: bool = False) -> str:
    bulges = circle(-44, -66, 26, "url(#skin)") + circle(44, -66, 26, "url(#skin)")
    skull = ellipse(0, -28, 76, 46, "url(#skin)")
    eyes = eye(-44, -66, look, closed) + eye(44, -66, look, closed)
    cheeks = ellipse(-52, -20, 12, 8, "#ff9fc0") + ellipse(52, -20, 12, 8, "#ff9fc0")
    return bulges + skull + eyes + cheeks + MOUTHS[mouth] + placed(crown(), 0, -64)


def scarf() -> str:
    band = "M-62 -4 Q0 34 62 -4 L66 20 Q0 58 -66 20 Z"
    end = "M24 30 L54 24 L64 82 L34 88 Z"
    return "".join(filled(path, "url(#stripes)") + line(path, "#b00f22", 2.5) for path in (end, band))


def foot(x: float, y: float) -> str:
    return "".join(circle(x + toe, y + 4, 8, LIMB) for toe in (-14, 0, 14)) + ellipse(x, y, 20, 9, LIMB)


def sitting(face: str, arms: str) -> str:
    """Seen from the front, on folded hind legs."""
    hind = ellipse(-64, 58, 30, 40, LIMB, 20) + ellipse(64, 58, 30, 40, LIMB, -20) + foot(-72, 92) + foot(72, 92)
    torso = ellipse(0, 44, 60, 58, "url(#skin)") + ellipse(0, 54, 40, 44, "url(#belly)")
    return hind + torso + arms + face + scarf()


ARMS_DOWN = line("M-42 40 L-34 88", LIMB, 20) + line("M42 40 L34 88", LIMB, 20) + foot(-34, 92) + foot(34, 92)
ARM_WAVING = (
    line("M-42 40 L-34 88", LIMB, 20)
    + foot(-34, 92)
    + line("M46 34 L96 -2", LIMB, 20)
    + "".join(circle(x, y, 9, LIMB) for x, y in ((92, -18), (106, -14), (112, 0)))
)
ARMS_UP = "".join(
    line(f"M{side * 46} 34 L{side * 98} -8", LIMB, 20)
    + "".join(circle(side * x, y, 9, LIMB) for x, y in ((92, -24), (106, -20), (114, -6)))
    for side in (-1, 1)
)


def from_the_side(mouth: str = "smile", closed: bool = False) -> str:
    """Crouching, the body to the left, the face turned to us."""
    body = ellipse(-30, 38, 78, 46, "url(#skin)", -18) + ellipse(-14, 58, 52, 26, "url(#belly)", -12)
    thigh = ellipse(-68, 56, 36, 32, LIMB, -30) + line("M-76 78 L-40 90", LIMB, 18) + foot(-34, 92)
    arm = line("M36 48 L44 88", LIMB, 18) + foot(48, 92)
    turned = placed(head(mouth, look=5, closed=closed) + scarf(), 28, 6, 0.88)
    return body + arm + thigh + turned


def leaping(mouth: str = "open") -> str:
    """In the air, legs stretched out behind and arms in front."""
    legs = "".join(
        line(f"M-40 40 L-84 {knee} L-112 {heel}", LIMB, 20) + circle(-114, heel, 13, LIMB) for knee, heel in ((36, 76), (66, 104))
    )
    body = ellipse(-24, 28, 66, 42, "url(#skin)", -24) + ellipse(-14, 44, 46, 24, "url(#belly)", -24)
    arms = line("M40 34 L92 52", LIMB, 18) + circle(96, 54, 13, LIMB) + line("M24 50 L66 82", LIMB, 18) + circle(70, 85, 13, LIMB)
    return legs + body + arms + placed(head(mouth, look=6) + scarf(), 30, -4, 0.85, turn_degrees=-8)


def portrait(mouth: str, look: float = 0, closed: bool = False) -> str:
    shoulders = ellipse(0, 66, 78, 56, "url(#skin)") + ellipse(0, 78, 48, 48, "url(#belly)")
    return shoulders + head(mouth, look, closed) + scarf()


# ----------------------------------------------------------------------------------------------- house


def house(windows: int = 2, chimney: bool = True, tall: bool = False) -> str:
    top = -50 if tall else -20
    roof = f"M-96 {top} L0 {top - 74} L96 {top} Z"
    walls = f"M-78 {top} H78 V92 H-78 Z"
    door = filled("M-18 92 V40 Q0 22 18 40 V92 Z", "#6b3410") + circle(9, 66, 3.5, "#ffd34d")
    panes = "".join(window(x, top + 22) for x in ((-46, 46) if windows == 2 else (-46, 0, 46)))
    smoke_stack = filled(f"M40 {top - 10} V{top - 76} H62 V{top - 10} Z", "#8a4a1c") if chimney else ""
    return smoke_stack + filled(walls, "url(#wall)") + filled(roof, "#4a9a2f") + line(roof, "#2e6b1b", 6) + door + panes


def window(x: float, y: float) -> str:
    frame = f"M{x - 15} {y} H{x + 15} V{y + 32} H{x - 15} Z"
    cross = f"M{x} {y} V{y + 32} M{x - 15} {y + 16} H{x + 15}"
    return filled(frame, "#fff6c9") + line(frame, "#6b3410", 5) + line(cross, "#6b3410", 3)


# --------------------------------------------------------------------------------------------- grounds


def plain(colour: str) -> str:
    return f'<rect width="256" height="256" fill="{colour}"/>'


def meadow() -> str:
    flowers = "".join(circle(x, y, 6, "#ffffff") + circle(x, y, 2.5, "#ffd34d") for x, y in ((24, 200), (230, 190), (206, 236)))
    return plain("#fff3c4") + filled("M0 176 Q128 142 256 176 V256 H0 Z", "#7cc444") + flowers


def pond() -> str:
    leaf = ellipse(128, 222, 112, 26, "#3f9d3a") + ellipse(128, 217, 112, 24, "#63c257")
    return plain("#d9f5ee") + filled("M0 190 H256 V256 H0 Z", "#7fd6cb") + leaf


def sunset() -> str:
    return plain("url(#sky)") + circle(200, 62, 34, "#fff0a8") + filled("M0 206 Q128 184 256 206 V256 H0 Z", "#c9783c")


def dotted(colour: str, dots: str) -> str:
    grid = [(x + (16 if row % 2 else 0), y) for row, y in enumerate(range(16, 256, 32)) for x in range(16, 256, 32)]
    return plain(colour) + "".join(circle(x, y, 5, dots) for x, y in grid)


def room() -> str:
    return plain("#f7cfd8") + filled("M0 196 H256 V256 H0 Z", "#b9774a") + ellipse(128, 222, 100, 20, "#f6efe2")


# -------------------------------------------------------------------------------------------- pictures


@dataclass(frozen=True)
class Picture:
    """One figure on one ground; position in units of the 256 x 256 canvas."""

    ground: str
    figure: str
    x: float = 128
    y: float = 140
    scale: float = 1.0
    turn_degrees: float = 0
    mirrored: bool = False

    def svg(self) -> str:
        figure = placed(self.figure, self.x, self.y, self.scale, self.turn_degrees, self.mirrored)
        return (
            '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 256 256" width="256" height="256">'
            f"<defs>{DEFINITIONS}</defs>{self.ground}{figure}</svg>"
        )


def frog_pictures() -> list[Picture]:
    smiling, laughing, asleep = head("smile"), head("open"), head("smile", closed=True)
    return [
        Picture(plain("#ffffff"), sitting(smiling, ARMS_DOWN)),
        Picture(plain("#ffffff"), sitting(laughing, ARM_WAVING), x=120),
        Picture(plain("#ffffff"), portrait("smile", look=4), y=150, scale=1.12),
        Picture(plain("#ffffff"), from_the_side(), scale=0.98),
        Picture(pond(), sitting(smiling, ARMS_DOWN), y=134, scale=0.9),
        Picture(pond(), from_the_side("tongue"), y=136, scale=0.88, mirrored=True),
        Picture(meadow(), sitting(head("tongue", look=-5), ARMS_DOWN), scale=0.94, mirrored=True),
        Picture(meadow(), leaping(), y=116, scale=0.92),
        Picture(plain("#ffe08a"), sitting(laughing, ARMS_UP), y=142, scale=0.96),
        Picture(plain("#f9c6d4"), portrait("open"), y=156, scale=1.2),
        Picture(sunset(), sitting(asleep, ARMS_DOWN), y=138, scale=0.9),
        Picture(sunset(), leaping("smile"), x=132, y=126, scale=0.88, mirrored=True),
        Picture(room(), sitting(head("smile", look=6), ARM_WAVING), x=130, y=136, scale=0.88, mirrored=True),
        Picture(dotted("#fdeacb", "#f6cf93"), from_the_side("smile", closed=True), scale=1.02),
        Picture(dotted("#d8f0c8", "#b4dd9c"), portrait("tongue", look=-4), y=148, scale=1.08, turn_degrees=-7),
        Picture(plain("#e9e2d5"), sitting(head("surprised"), ARMS_UP), y=146, scale=1.0, turn_degrees=6),
    ]


def house_pictures() -> list[Picture]:
    return [
        Picture(plain("#ffffff"), house()),
        Picture(plain("#ffffff"), house(windows=3, tall=True), y=144, scale=0.95),
        Picture(meadow(), house(), y=130, scale=0.9),
        Picture(sunset(), house(tall=True), y=140, scale=0.9, mirrored=True),
        Picture(plain("#f9c6d4"), house(windows=3, chimney=False, tall=True), y=146),
        Picture(dotted("#fdeacb", "#f6cf93"), house(), scale=1.1, mirrored=True),
    ]


def write(pictures: list[Picture], folder: Path, stem: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, picture in enumerate(pictures, start=1):
        png = resvg_py.svg_to_bytes(svg_string=picture.svg(), width=SIZE_PIXELS, height=SIZE_PIXELS)
        (folder / f"{stem}_{number:02}.png").write_bytes(bytes(png))
    print(f"{len(pictures)} pictures in {folder}")


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent
    write(frog_pictures(), target / "frog" / TRAINING_FOLDER, "frog")
    write(house_pictures(), target / "other" / TRAINING_FOLDER, "house")
