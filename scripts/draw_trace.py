#!/usr/bin/env python3
"""Draws a few layers of one step from a trace of `cachalot bench step --trace FILE` as an SVG: a track for each rank.

    scripts/draw_trace.py trace.json docs/step.svg --step -1 --layers 4-6
"""
import argparse
import json
from xml.sax.saxutils import escape

WIDTH, LEFT, TOP, TRACK, GAP = 1180, 90, 74, 62, 26
# Whatever has no colour of its own is computing.
COLOURS = {
    "attention": "#4c78a8", "gate": "#b279a2", "shared expert": "#72b7b2", "experts": "#54a24b", "dense": "#54a24b",
    "weighted sum": "#9ecae9", "head": "#4c78a8", "sampling": "#b279a2",
}
EXCHANGE, WAITING, OTHER = "#f58518", "#e4e4e4", "#bab0ac"
LEGEND = [("attention", COLOURS["attention"]), ("gate", COLOURS["gate"]), ("shared expert", COLOURS["shared expert"]),
          ("experts", COLOURS["experts"]), ("weighted sum", COLOURS["weighted sum"]), ("exchange", EXCHANGE),
          ("waiting", WAITING)]


def colour_of(span):
    if span["cat"] == "exchange":
        return EXCHANGE
    if span["cat"] == "waiting":
        return WAITING
    return COLOURS.get(span["name"], OTHER)


def nested(spans):
    """Outer spans first, so that inner ones are drawn over them."""
    return sorted(spans, key=lambda span: (span["ts"], -span["dur"]))


def window_of(events, step, layers):
    """From the first to the last moment of these layers in the step, on any rank."""
    begins, ends = [], []
    for rank in sorted({event["tid"] for event in events}):
        track = [event for event in events if event["tid"] == rank]
        steps = [event for event in track if event["name"] == "step"]
        chosen = steps[step]
        inside = [event for event in track
                  if chosen["ts"] <= event["ts"] < chosen["ts"] + chosen["dur"]
                  and layers[0] <= event["args"].get("layer", -1) <= layers[1]]
        begins.append(min(event["ts"] for event in inside))
        ends.append(max(event["ts"] + event["dur"] for event in inside))
    return min(begins), max(ends)


def draw(trace, step, layers):
    names = {event["tid"]: event["args"]["name"] for event in trace if event["name"] == "thread_name"}
    events = [event for event in trace if event["ph"] == "X"]
    begin, end = window_of(events, step, layers)
    scale = (WIDTH - LEFT - 20) / (end - begin)
    height = TOP + len(names) * (TRACK + GAP) + 34
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="12">',
           f'<rect width="{WIDTH}" height="{height}" fill="white"/>']
    x = LEFT
    for name, colour in LEGEND:
        out.append(f'<rect x="{x}" y="14" width="14" height="14" fill="{colour}" stroke="#888"/>'
                   f'<text x="{x + 20}" y="25">{name}</text>')
        x += 44 + 7 * len(name)
    for row, rank in enumerate(sorted(names)):
        y = TOP + row * (TRACK + GAP)
        out.append(f'<text x="8" y="{y + TRACK / 2 + 4}">rank {rank}</text>')
        track = [event for event in events
                 if event["tid"] == rank and event["ts"] + event["dur"] > begin and event["ts"] < end
                 and event["name"] not in ("step", "mixture of experts")]
        out.append(f'<rect x="{LEFT}" y="{y}" width="{(end - begin) * scale:.1f}" height="{TRACK}" fill="{OTHER}"/>')
        for span in nested(track):
            left = max(span["ts"], begin)
            width = (min(span["ts"] + span["dur"], end) - left) * scale
            left = LEFT + (left - begin) * scale
            about = ", ".join(f"{key} {value}" for key, value in span["args"].items())
            out.append(f'<rect x="{left:.2f}" y="{y}" width="{max(width, 0.4):.2f}" height="{TRACK}" '
                       f'fill="{colour_of(span)}"><title>{escape(span["name"])}: {span["dur"]:.1f} us, {about}</title></rect>')
            if width > 7 * len(span["name"]):
                out.append(f'<text x="{left + width / 2:.1f}" y="{y + 36}" text-anchor="middle" '
                           f'font-size="11">{escape(span["name"])}</text>')
            if span["name"] == "attention" and layers[0] <= span["args"]["layer"] <= layers[1]:
                out.append(f'<text x="{left + 2:.1f}" y="{y - 6}" font-size="11" fill="#555">layer {span["args"]["layer"]}</text>')
    axis = TOP + len(names) * (TRACK + GAP) - 6
    tick = next(t for t in (20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 10**9) if (end - begin) / t < 14)
    for k in range(int((end - begin) / tick) + 1):
        x = LEFT + k * tick * scale
        out.append(f'<line x1="{x:.1f}" y1="{axis}" x2="{x:.1f}" y2="{axis + 6}" stroke="#888"/>'
                   f'<text x="{x:.1f}" y="{axis + 20}" text-anchor="middle" fill="#555">{k * tick / 1000:g} ms</text>')
    return "\n".join(out + ["</svg>"]) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trace")
    parser.add_argument("picture")
    parser.add_argument("--step", type=int, default=-1, help="which of the steps; -1: the last")
    parser.add_argument("--layers", default="4-6", help="first and last layer")
    options = parser.parse_args()
    with open(options.trace) as file:
        trace = json.load(file)["traceEvents"]
    first, last = (int(number) for number in options.layers.split("-"))
    with open(options.picture, "w") as file:
        file.write(draw(trace, options.step, (first, last)))


if __name__ == "__main__":
    main()
