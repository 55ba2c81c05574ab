#!/usr/bin/env python3
"""Draws loss.csv as a picture: both losses on a logarithmic scale over the tokens seen."""

import argparse
import csv
import math

WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 760, 420, 70, 40, 20, 60
COLORS = {"loss": ("next token", "#2166ac"), "mtp_loss": ("token after next (MTP layer)", "#d6604d")}


def smoothed(points, window=15):
    """The mean of so many steps at a time, for a curve that can be read."""
    for begin in range(0, len(points), window):
        some = points[begin : begin + window]
        yield some[-1][0], sum(y for _, y in some) / len(some)


def draw(rows):
    last = float(rows[-1]["tokens"])
    values = [float(row[name]) for row in rows for name in COLORS if row[name]]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))

    def place(tokens, loss):
        across = LEFT + (WIDTH - LEFT - RIGHT) * tokens / last
        return across, TOP + (HEIGHT - TOP - BOTTOM) * (high - math.log10(loss)) / (high - low)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="13">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
    ]
    for power in range(low, high + 1):
        for digit in range(1, 10 if power < high else 2):
            y = place(0, digit * 10**power)[1]
            shade = "#bbb" if digit == 1 else "#eee"
            parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="{shade}"/>')
        parts.append(
            f'<text x="{LEFT - 8}" y="{place(0, 10**power)[1] + 4:.1f}" text-anchor="end">{10**power:g}</text>'
        )
    for millions in range(0, int(last / 1e6) + 1, max(1, round(last / 8e6))):
        x = place(millions * 1e6, 1)[0]
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle">{millions}</text>')
    parts.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 14}" text-anchor="middle">million tokens</text>')
    for idx, (name, (label, color)) in enumerate(COLORS.items()):
        points = [(float(row["tokens"]), float(row[name])) for row in rows if row[name]]
        if not points:
            continue
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in smoothed(points)))
        parts.append(f'<polyline points="{line}" fill="none" stroke="{color}" stroke-width="1.6"/>')
        parts.append(f'<text x="{LEFT + 10 + 170 * idx}" y="{TOP - 14}" fill="{color}">{label}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--csv", required=True)
    parser.add_argument("--out", required=True)
    arguments = parser.parse_args()
    with open(arguments.csv, newline="") as file:
        rows = list(csv.DictReader(file))
    with open(arguments.out, "w") as file:
        file.write(draw(rows))


if __name__ == "__main__":
    main()
