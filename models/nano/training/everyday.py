"""Questions about days of the week and units."""

from arithmetic import multiplication
from phrasing import Phrasings, Problem

DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]

UNITS = [  # the larger unit, the smaller, how many make one, and other spellings
    ("kilometer", "meter", 1000, ["kilometer", "kilometre"], ["meter", "metre"]),
    ("meter", "centimeter", 100, ["meter", "metre"], ["centimeter", "centimetre"]),
    ("centimeter", "millimeter", 10, ["centimeter", "centimetre"], ["millimeter", "millimetre"]),
    ("kilogram", "gram", 1000, ["kilogram"], ["gram"]),
    ("ton", "kilogram", 1000, ["ton"], ["kilogram"]),
    ("liter", "milliliter", 1000, ["liter", "litre"], ["milliliter", "millilitre"]),
    ("dollar", "cent", 100, ["dollar"], ["cent"]),
    ("hour", "minute", 60, ["hour"], ["minute"]),
    ("minute", "second", 60, ["minute"], ["second"]),
    ("day", "hour", 24, ["day"], ["hour"]),
    ("week", "day", 7, ["week"], ["day"]),
    ("year", "month", 12, ["year"], ["month"]),
]


def day(rng):
    kind = rng.choice(["after", "after", "before", "tomorrow", "yesterday"])
    start = rng.randrange(7)
    distance = 1 if kind in ("tomorrow", "yesterday") else rng.randint(1, 30)
    direction = 1 if kind in ("after", "tomorrow") else -1
    rests = list(range(distance, -1, -7))
    reduced = "".join(f"-7={rest}" for rest in rests[1:])
    steps = [f"{DAYS[(start + direction * step) % 7]} {step}" for step in range(rests[-1] + 1)]
    result = DAYS[(start + direction * distance) % 7]
    thought = f"{'Forward' if direction > 0 else 'Back'} {distance}{reduced}: {', '.join(steps)}. So {result}."
    days = "1 day" if distance == 1 else f"{distance} days"
    return Problem("day." + kind, {"day": DAYS[start], "days": days}, thought, f"It is {result}.")


def unit(rng):
    large, small, factor, large_spellings, small_spellings = rng.choice(UNITS)
    tens = factor in (10, 100, 1000)
    amount = rng.randint(1, 99) if tens else rng.randint(1, 9)
    total = amount * factor
    work = f"{amount}*{factor}={total}." if tens else f"{multiplication(factor, amount)} So {total}."
    name = large if amount == 1 else large + "s"
    slots = {
        "n": amount,
        "large": rng.choice(large_spellings) + ("" if amount == 1 else "s"),
        "small": rng.choice(small_spellings) + "s",
        "are": "is" if amount == 1 else "are",
        "do": "does" if amount == 1 else "do",
    }
    return Problem("unit", slots, f"1 {large} = {factor} {small}s. {work}", f"{amount} {name} = {total} {small}s")


PHRASINGS = {
    "day.after": Phrasings(
        [
            "What day is {days} after {day}?",
            "What day is it {days} after {day}?",
            "Which day is {days} after {day}?",
            "Today is {day}. What day is it in {days}?",
            "If today is {day}, what day is it in {days}?",
            "It is {day}. What day will it be in {days}?",
            "If it is {day} today, what day will it be in {days}?",
            "What day comes {days} after {day}?",
            "{days} after {day} is what day?",
            "What day of the week is {days} after {day}?",
            "What weekday is {days} after {day}?",
            "If today is {day}, what day of the week will it be {days} from now?",
            "[What|Which] [day|weekday|day of the week] [is|comes|is it|do we have|will it be] {days} after {day}[?|]",
            (
                "[Today is|It is|If today is|If it is|Now it is|Suppose today is|Let today be] {day}[, |. ][what|"
                "which] [day|weekday|day of the week] [is it|will it be|do we have] [in {days}|{days} from now][?|]"
            ),
            (
                "[Tell me|Say|Find|Can you tell me|Do you know|Name] [the day|the weekday|which day is|which day it is|"
                "what day is|the day that comes] {days} after {day}[.|?]"
            ),
            "{days} after {day}[ is| comes|:| it is|,] [what|which] [day|weekday|day of the week]?",
            "[Start at|Take|From] {day}[. |, |: ][what|which] day [is|comes] {days} [later|after it]?",
            "{day} [plus] {days}[?| is what day?]",
        ],
        [
            "Which day comes {days} after {day}?",
            "Today is {day}. Which day is it in {days}?",
            "If it is {day}, what day is it {days} from now?",
            "Tell me what day it is {days} after {day}.",
        ],
    ),
    "day.before": Phrasings(
        [
            "What day is {days} before {day}?",
            "What day is it {days} before {day}?",
            "Which day is {days} before {day}?",
            "Today is {day}. What day was it {days} ago?",
            "If today is {day}, what day was it {days} ago?",
            "What day comes {days} before {day}?",
            "It is {day}. What day was it {days} ago?",
            "{days} before {day} is what day?",
            "What day of the week is {days} before {day}?",
            "What weekday was {days} before {day}?",
            "If it is {day} today, what day was it {days} ago?",
            (
                "[What|Which] [day|weekday|day of the week] [is|comes|is it|was|do we have|will it be] {days} before "
                "{day}[?|]"
            ),
            (
                "[Today is|It is|If today is|If it is|Now it is|Suppose today is|Let today be] {day}[, |. ][what|"
                "which] [day|weekday|day of the week] [was it|did we have] [{days} ago|{days} earlier][?|]"
            ),
            (
                "[Tell me|Say|Find|Can you tell me|Do you know|Name] [the day|the weekday|which day is|which day it is|"
                "what day is|the day that comes] {days} before {day}[.|?]"
            ),
            "{days} before {day}[ is| comes|:| it is|,] [what|which] [day|weekday|day of the week]?",
            "[Start at|Take|From] {day}[. |, |: ][what|which] day [is|comes] {days} [earlier|before it]?",
            "{day} [minus] {days}[?| is what day?]",
        ],
        [
            "Which day comes {days} before {day}?",
            "Today is {day}. Which day was it {days} ago?",
            "Tell me what day it is {days} before {day}.",
        ],
    ),
    "day.tomorrow": Phrasings(
        [
            "Today is {day}. What day is tomorrow?",
            "If today is {day}, what day is tomorrow?",
            "What day comes after {day}?",
            "Which day follows {day}?",
            "It is {day}. What day is it tomorrow?",
            "What day is after {day}?",
            "What is the day after {day}?",
            (
                "[Today is|It is|If today is|If it is|Now it is|Suppose it is] {day}[, |. ][what|which] [day|weekday|"
                "day of the week] [is it|will it be|is|do we have] tomorrow[?|]"
            ),
            "[If it is|As it is] {day} [now|], what [day |]is tomorrow?",
            "[Which|What] [weekday|day of the week] [comes after|follows|is after|comes right after] {day}[?|]",
            (
                "[Tell me|Say|Can you tell me|Name] [the|which|what] day [that |][comes after|follows|is after|comes "
                "right after] {day}[.|?]"
            ),
            "[The|What is the|Name the|Say the] day after {day}[?|]",
        ],
        ["Which day comes after {day}?", "If it is {day} today, what is tomorrow?", "What day follows {day}?"],
    ),
    "day.yesterday": Phrasings(
        [
            "Today is {day}. What day was yesterday?",
            "If today is {day}, what day was yesterday?",
            "What day comes before {day}?",
            "It is {day}. What day was it yesterday?",
            "Which day is before {day}?",
            "What day is before {day}?",
            "What is the day before {day}?",
            (
                "[Today is|It is|If today is|If it is|Now it is|Suppose it is] {day}[, |. ][what|which] [day|weekday|"
                "day of the week] [was it|was|did we have] yesterday[?|]"
            ),
            "[If it is|As it is] {day} [now|], what [day |]was yesterday?",
            "[Which|What] [weekday|day of the week] [comes before|is before|comes right before|precedes] {day}[?|]",
            (
                "[Tell me|Say|Can you tell me|Name] [the|which|what] day [that |][comes before|is before|comes right "
                "before|precedes] {day}[.|?]"
            ),
            "[The|What is the|Name the|Say the] day before {day}[?|]",
        ],
        ["Which day comes before {day}?", "If it is {day} today, what was yesterday?"],
    ),
    "unit": Phrasings(
        [
            "How many {small} are in {n} {large}?",
            "How many {small} are there in {n} {large}?",
            "Convert {n} {large} to {small}.",
            "What is {n} {large} in {small}?",
            "How many {small} is {n} {large}?",
            "{n} {large} in {small}?",
            "How many {small} make {n} {large}?",
            "Convert {n} {large} into {small}.",
            "Turn {n} {large} into {small}.",
            "{n} {large} {are} how many {small}?",
            "How many {small} [are|are there|do you have|do I have|do we have|do you get] in {n} {large}[?|]",
            "[Convert|Change|Turn|Write|Give|Say|Show] {n} {large} [to|into|in|as] {small}[.|]",
            "[What|How much] [is|are] {n} {large} [in|expressed in|converted to|written in] {small}[?|]",
            (
                "[Tell me|Say|Can you tell me|Do you know|I want to know] how many {small} [{n} {large} {are}|make {n} "
                "{large}|there are in {n} {large}|you have in {n} {large}][.|?]"
            ),
            "[Can|Could] you [convert|change|turn] {n} {large} [to|into] {small}?",
            "{n} {large}[:|,|.|] [how many|how many|in how many] {small}?",
            "{n} {large} [{are}|make|equal|=] [how many|what in] {small}?",
            "How many {small} [{do} {n} {large} [contain|make|equal]|fit in {n} {large}|{are} {n} {large}]?",
            "[Give me|Write|Find] the [number of {small}|{small}] [in|of|for] {n} {large}[.|]",
        ],
        [
            "How many {small} {do} {n} {large} have?",
            "Express {n} {large} in {small}.",
            "Tell me how many {small} are in {n} {large}.",
            "{n} {large} to {small}?",
        ],
    ),
}
