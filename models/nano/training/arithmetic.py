"""Questions about numbers. Every thought works digit by digit on numbers padded to one width, so that each step looks
at fixed places: this is what lets a model this small compute exactly."""

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
    places = rng.choice([0, 0, 1, 1, 2, 2])
    return number if places == 0 else number + "." + "".join(rng.choice("0123456789") for _ in range(places))


def near_decimal(rng, text):
    """Another number with the same start, so that the walk over the digits is long."""
    kept = rng.randint(1, len(text))
    tail = "".join(rng.choice("0123456789") for _ in range(rng.randint(0, 2)))
    near = text[:kept].rstrip(".") if not tail else text[:kept] + tail
    whole, dot, decimals = near.partition(".")
    return (str(int(whole[:3])) + dot + decimals[:2]).rstrip(".")


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
    first = second = random_decimal(rng)
    while second == first:
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
        thought = f"{kind[3:].capitalize()}? {thought} {verdict}."
        return Problem("compare." + kind, {"a": first, "b": second}, thought, f"{verdict}, {fact[sign]}")
    answer = fact[sign]
    if sign == "<" and kind == "larger":
        answer = f"{second} is larger than {first}."
    elif sign == ">" and kind == "smaller":
        answer = f"{second} is smaller than {first}."
    return Problem("compare." + kind, {"a": first, "b": second}, f"{kind.capitalize()}: {thought}", answer)


def random_list(rng, top):
    return rng.sample(range(0 if top <= 100 else 10, top), rng.choice([3, 3, 4]))


def extreme(rng):
    """ "Largest: 012, 190, 007. 012 or 190: 190, 190 or 007: 190. So 190." Writing the better one decides digit by digit,
    where a sign would decide all at once."""
    kind = rng.choice(["largest", "smallest"])
    numbers = random_list(rng, rng.choice([100, 100, 1000]))
    width = len(str(max(numbers)))
    padded = [str(number).rjust(width, "0") for number in numbers]
    best, steps = padded[0], []
    for number in padded[1:]:
        better = (max if kind == "largest" else min)(best, number)
        steps.append(f"{best} or {number}: {better}")
        best = better
    thought = f"{kind.capitalize()}: {', '.join(padded)}. {', '.join(steps)}. So {int(best)}."
    return Problem("extreme." + kind, {"list": ", ".join(map(str, numbers))}, thought, f"The {kind} is {int(best)}.")


def sort(rng):
    """Looks up every first digit in turn: "Up: 34,07,31. 0 07. 1. 2. 3 31 34. 4. 5. 6. 7. 8. 9. So 7, 31, 34." """
    kind = rng.choice(["up", "down"])
    numbers = random_list(rng, 100)
    while len({number // 10 for number in numbers}) < len(numbers) - 1:  # at most two begin with the same digit
        numbers = random_list(rng, 100)
    padded = [f"{number:02}" for number in numbers]
    ordered = sorted(padded, reverse=kind == "down")
    first_digits = "0123456789" if kind == "up" else "9876543210"
    steps = [" ".join([digit, *(number for number in ordered if number[0] == digit)]) for digit in first_digits]
    answer = ", ".join(str(int(number)) for number in ordered)
    thought = f"{kind.capitalize()}: {','.join(padded)}. {'. '.join(steps)}. So {answer}."
    return Problem("sort." + kind, {"list": ", ".join(map(str, numbers))}, thought, answer)


# The four operations, from the right as on paper.


def addition(first, second, min_width=1):
    """The steps of "4789+0365: 9+5=14, 8+6+1=15, 7+3+1=11, 4+0+1=5." """
    width = max(len(str(first)), len(str(second)), min_width)
    steps, carry = [], 0
    for left, right in zip(*(digits_of(f"{number:0{width}}") for number in (first, second))):
        total = left + right + carry
        steps.append(f"{left}+{right}{'+1' if carry else ''}={total}")
        carry = total // 10
    return f"{first:0{width}}+{second:0{width}}: {', '.join(steps)}."


def subtraction(larger, smaller, min_width=1):
    """The steps of "4781-0365: 11-5=6, 8-6-1=1, 7-3=4, 4-0=4. 4416." with the leading zeros of the result."""
    width = max(len(str(larger)), min_width)
    steps, result, borrow = [], "", 0
    for top, bottom in zip(*(digits_of(f"{number:0{width}}") for number in (larger, smaller))):
        lends = top - bottom - borrow < 0
        rest = top - bottom - borrow + 10 * lends
        steps.append(f"{'1' if lends else ''}{top}-{bottom}{'-1' if borrow else ''}={rest}")
        result = str(rest) + result
        borrow = int(lends)
    return f"{larger:0{width}}-{smaller:0{width}}: {', '.join(steps)}. {result}."


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
    """The steps of "97/4: 09:2*4=08,1. 17:4*4=16,1. 24 r 1." with the leading zeros of the result."""
    steps, result, rest = [], "", 0
    for digit in str(number):
        part = 10 * rest + int(digit)
        quotient, rest = divmod(part, divisor)
        steps.append(f"{part:02}:{quotient}*{divisor}={quotient * divisor:02},{rest}.")
        result += str(quotient)
    return f"{number}/{divisor}: {' '.join(steps)} {result} r {rest}."


def add(rng):
    first, second = random_number(rng), random_number(rng)
    thought = f"{addition(first, second)} So {first + second}."
    return Problem("add", {"a": first, "b": second}, thought, f"{first} + {second} = {first + second}")


def subtract(rng):
    """Finds the larger number first: then all that is left is to take the smaller from it."""
    first, second = random_number(rng), random_number(rng)
    if first < second and rng.random() < 0.6:
        first, second = second, first
    width = len(str(max(first, second)))
    steps, sign = walk(f"{first:0{width}}", f"{second:0{width}}")
    verdict = "Negative" if sign == "<" else "Positive"
    thought = f"{first:0{width}} and {second:0{width}}: {steps}. {verdict}. "
    thought += f"{subtraction(max(first, second), min(first, second))} So {first - second}."
    return Problem("subtract", {"a": first, "b": second}, thought, f"{first} - {second} = {first - second}")


def multiply(rng):
    number, digit = random_number(rng, 3), rng.randint(0, 9)
    thought = f"{multiplication(number, digit)} So {number * digit}."
    first, second = (number, digit) if rng.random() < 0.7 or number < 10 else (digit, number)
    return Problem("multiply", {"a": first, "b": second}, thought, f"{first} * {second} = {first * second}")


def divide(rng):
    divisor = rng.randint(2, 9)
    number = max(random_number(rng, 3), 10)
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
    goal = {"which": "Even or odd", "is_even": "Even", "is_odd": "Odd"}[kind]
    thought = f"{goal}? {number} ends in {number % 10}: {name}."
    if kind == "which":
        return Problem("parity.which", {"a": number}, f"{thought} So {name}.", f"{number} is {name}.")
    verdict = "Yes" if kind == "is_" + name else "No"
    return Problem("parity." + kind, {"a": number}, f"{thought} So {verdict}.", f"{verdict}, {number} is {name}.")


def sequence(rng):
    """ "Up: 03,07,11. 11-07: 11-7=4, 1-0-1=0. 04. 11+04: 1+4=5, 1+0=1. So 15." """
    step, size = rng.randint(1, 12), rng.randint(3, 5)
    start = rng.randint(0, 98 - step * size)
    numbers = [start + step * position for position in range(size + 1)]
    up = rng.random() < 0.65
    if not up:
        numbers.reverse()
    *shown, following = numbers
    last = shown[-1]
    steps = subtraction(max(shown[-2:]), min(shown[-2:]), 2)
    onwards = addition(last, step, 2) if up else subtraction(last, step, 2)
    direction = "Up" if up else "Down"
    thought = f"{direction}: {','.join(f'{number:02}' for number in shown)}. {steps} {onwards} So {following}."
    slots = {"list": ", ".join(map(str, shown))}
    return Problem("sequence", slots, thought, f"The next number is {following}.")
