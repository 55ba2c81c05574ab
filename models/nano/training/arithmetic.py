"""Questions about numbers. Every thought works digit by digit on numbers padded to one width, so that each step looks at
fixed places: this is what lets a model this small compute exactly."""

from phrasing import Problem


def digits_of(number):
    return [int(digit) for digit in reversed(str(number))]


def random_number(rng, max_digits=4):
    """A number whose count of digits, not its value, is uniform."""
    num_digits = rng.randint(1, max_digits)
    return rng.randint(0 if num_digits == 1 else 10 ** (num_digits - 1), 10**num_digits - 1)


# Comparing: "3.80 and 3.11: 3=3, 8>1. So 3.8 > 3.11."


def random_decimal(rng):
    number = str(random_number(rng, 3))
    places = rng.choice([0, 0, 1, 1, 2, 2, 3])
    return number if places == 0 else number + "." + "".join(rng.choice("0123456789") for _ in range(places))


def near_decimal(rng, text):
    """Another number with the same start, so that the walk over the digits is long."""
    kept = rng.randint(1, len(text))
    tail = "".join(rng.choice("0123456789") for _ in range(rng.randint(0, 2)))
    near = text[:kept].rstrip(".") if not tail else text[:kept] + tail
    whole, dot, decimals = near.partition(".")
    return (str(int(whole[:3])) + dot + decimals[:3]).rstrip(".")


def pad_pair(first, second):
    """Both texts with as many digits before and after the point."""
    wholes, decimals = zip(*((whole, places) for whole, _, places in (text.partition(".") for text in (first, second))))
    padded = []
    for whole, places in zip(wholes, decimals):
        text = whole.rjust(max(map(len, wholes)), "0")
        if any(decimals):
            text += "." + places.ljust(max(map(len, decimals)), "0")
        padded.append(text)
    return padded


def walk(first, second):
    """Compares padded numbers from the left up to the first digit that differs; gives the steps and the sign."""
    steps = []
    for left, right in zip(first, second):
        if left == ".":
            continue
        sign = "=" if left == right else "<" if left < right else ">"
        steps.append(left + sign + right)
        if sign != "=":
            break
    return ", ".join(steps), sign


def compare(rng):
    kind = rng.choice(["larger", "larger", "larger", "smaller", "smaller", "is_larger", "is_smaller"])
    first = random_decimal(rng)
    second = near_decimal(rng, first) if rng.random() < 0.55 else random_decimal(rng)
    if rng.random() < 0.5:
        first, second = second, first
    padded = pad_pair(first, second)
    steps, sign = walk(*padded)
    thought = f"{padded[0]} and {padded[1]}: {steps}. So {first} {sign} {second}."
    fact = {
        "<": f"{first} is smaller than {second}.",
        ">": f"{first} is larger than {second}.",
        "=": f"{first} and {second} are equal.",
    }
    if kind.startswith("is_"):
        verdict = "Yes" if sign == (">" if kind == "is_larger" else "<") else "No"
        return Problem(
            "compare." + kind, {"a": first, "b": second}, f"{thought} {verdict}.", f"{verdict}, {fact[sign]}"
        )
    answer = fact[sign]
    if sign == "<" and kind == "larger":
        answer = f"{second} is larger than {first}."
    elif sign == ">" and kind == "smaller":
        answer = f"{second} is smaller than {first}."
    return Problem("compare." + kind, {"a": first, "b": second}, f"{kind.capitalize()}: {thought}", answer)


def random_list(rng, sizes, limit):
    size = rng.choice(sizes)
    top = rng.choice(limit)
    return rng.sample(range(0 if top < 100 else 10, top), size)


def extreme(rng):
    kind = rng.choice(["largest", "smallest"])
    numbers = random_list(rng, [3, 3, 4, 4, 5], [20, 100, 100, 1000])
    width = len(str(max(numbers)))
    padded = [str(number).rjust(width, "0") for number in numbers]
    better = max if kind == "largest" else min
    best, steps = padded[0], []
    for number in padded[1:]:
        winner = better(best, number)
        steps.append(f"{best} or {number}: {winner}.")
        best = winner
    thought = f"{kind.capitalize()} of {', '.join(padded)}. {' '.join(steps)} So {int(best)}."
    return Problem("extreme." + kind, {"list": ", ".join(map(str, numbers))}, thought, f"The {kind} is {int(best)}.")


def sort(rng):
    kind = rng.choice(["up", "down"])
    numbers = random_list(rng, [3, 3, 4, 4, 5], [20, 100, 100, 100])
    width = len(str(max(numbers)))
    left = [str(number).rjust(width, "0") for number in numbers]
    thought = f"{'Smallest' if kind == 'up' else 'Largest'} first: {', '.join(left)}."
    while left:
        taken = min(left) if kind == "up" else max(left)
        left.remove(taken)
        thought += f" Take {taken}, left {', '.join(left)}." if left else f" Take {taken}."
    ordered = ", ".join(map(str, sorted(numbers, reverse=kind == "down")))
    return Problem("sort." + kind, {"list": ", ".join(map(str, numbers))}, f"{thought} So {ordered}.", ordered)


# The four operations, from the right as on paper.


def addition(first, second):
    """The steps of "4789+0365: 9+5=14, 8+6+1=15, 7+3+1=11, 4+0+1=5." """
    width = max(len(str(first)), len(str(second)))
    steps, carry = [], 0
    for left, right in zip(digits_of(str(first).rjust(width, "0")), digits_of(str(second).rjust(width, "0"))):
        total = left + right + carry
        steps.append(f"{left}+{right}{'+1' if carry else ''}={total}")
        carry = total // 10
    return f"{str(first).rjust(width, '0')}+{str(second).rjust(width, '0')}: {', '.join(steps)}."


def subtraction(larger, smaller):
    """The steps of "4781-0365: 11-5=6, 8-6-1=1, 7-3=4, 4-0=4. 4416." with the leading zeros of the result."""
    width = len(str(larger))
    steps, result, borrow = [], "", 0
    for top, bottom in zip(digits_of(larger), digits_of(str(smaller).rjust(width, "0"))):
        lends = top - bottom - borrow < 0
        rest = top - bottom - borrow + 10 * lends
        steps.append(f"{'1' if lends else ''}{top}-{bottom}{'-1' if borrow else ''}={rest}")
        result = str(rest) + result
        borrow = int(lends)
    return f"{larger}-{str(smaller).rjust(width, '0')}: {', '.join(steps)}. {result}."


def multiplication(number, digit):
    """The steps of "347*6: 7*6=42, 4*6=24+4=28, 3*6=18+2=20." """
    steps, carry = [], 0
    for left in digits_of(number):
        product = left * digit
        total = product + carry
        steps.append(f"{left}*{digit}={product}" + (f"+{carry}={total}" if carry else ""))
        carry = total // 10
    return f"{number}*{digit}: {', '.join(steps)}."


def division(number, divisor):
    """The steps of "97/4: 9/4=2 r 1, 17/4=4 r 1." """
    steps, rest = [], 0
    for digit in str(number):
        part = 10 * rest + int(digit)
        quotient, rest = divmod(part, divisor)
        steps.append(f"{part}/{divisor}={quotient} r {rest}")
    return f"{number}/{divisor}: {', '.join(steps)}."


def add(rng):
    first, second = random_number(rng), random_number(rng)
    thought = f"{addition(first, second)} So {first + second}."
    return Problem("add", {"a": first, "b": second}, thought, f"{first} + {second} = {first + second}")


def subtract(rng):
    first, second = random_number(rng), random_number(rng)
    if first < second and rng.random() < 0.8:
        first, second = second, first
    thought = f"{subtraction(max(first, second), min(first, second))} So {first - second}."
    if first < second:
        thought = "Negative. " + thought
    return Problem("subtract", {"a": first, "b": second}, thought, f"{first} - {second} = {first - second}")


def multiply(rng):
    number, digit = random_number(rng, 3), rng.randint(0, 9)
    thought = f"{multiplication(number, digit)} So {number * digit}."
    first, second = (number, digit) if rng.random() < 0.7 or number < 10 else (digit, number)
    return Problem("multiply", {"a": first, "b": second}, thought, f"{first} * {second} = {first * second}")


def divide(rng):
    divisor = rng.randint(2, 9)
    number = max(random_number(rng, 4), 10)
    if rng.random() < 0.5:
        number = max(number // divisor, 2) * divisor
    quotient, rest = divmod(number, divisor)
    result = f"{quotient} remainder {rest}" if rest else f"{quotient}"
    return Problem(
        "divide",
        {"a": number, "b": divisor},
        f"{division(number, divisor)} So {result}.",
        f"{number} / {divisor} = {result}",
    )


def parity(rng):
    kind = rng.choice(["which", "which", "is_even", "is_odd"])
    number = random_number(rng)
    name = "odd" if number % 2 else "even"
    thought = f"{number} ends in {number % 10}. {number % 10} is {name}."
    if kind == "which":
        return Problem("parity.which", {"a": number}, f"{thought} So {name}.", f"{number} is {name}.")
    verdict = "Yes" if kind == "is_" + name else "No"
    return Problem("parity." + kind, {"a": number}, f"{thought} {verdict}.", f"{verdict}, {number} is {name}.")


def sequence(rng):
    step, start, size = rng.randint(1, 12), rng.randint(0, 40), rng.randint(3, 5)
    if rng.random() < 0.25:
        start, step = start + step * 5, -step
    numbers = [start + step * position for position in range(size)]
    following = numbers[-1] + step
    sign = "+" if step > 0 else "-"
    thought = f"From {numbers[0]} to {numbers[1]}: {sign}{abs(step)}. {numbers[-1]}{sign}{abs(step)}={following}."
    return Problem(
        "sequence",
        {"list": ", ".join(map(str, numbers))},
        f"{thought} So {following}.",
        f"The next number is {following}.",
    )
