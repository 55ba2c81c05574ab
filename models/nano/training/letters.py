"""Questions about the letters of a word. A quoted lower-case word is one token a letter, so a thought can walk along it."""

from phrasing import Phrasings, Problem, is_reserved_word

WORDS = (
    """able about above account across action address after again agree airport alone amber anchor angle animal answer
apple april apron arrow artist autumn avocado baby bacon badge bakery ball balloon bamboo banana banjo barrel basket beach
bear beaver bedroom bell berry bicycle biology bird biscuit blanket blossom boat book border bottle bottom bread breeze bridge
broccoli brother bubble bucket buffalo butter button cabbage cabin cactus camel camera candle canoe canyon carpet carrot castle
cat cattle ceiling cellar cello center cereal chair cheese cherry chess chicken chimney church cinema circle city classroom
cliff clock cloud clover coast cobra coconut coffee college color comet committee compass cookie copper coral corner cotton
couch cousin coyote cradle crane crayon cream cricket crow crystal cucumber curtain cushion daisy dance danger deer desert
desk dinner doctor dog dolphin donkey door dragon drawer dream drum duck eagle earth east echo egg eight elbow elephant eleven
emerald engine evening falcon family farmer father feather fence fern field fig finger fire fish flag flamingo flower flute
forest fork fox freedom frog fruit garage garden garlic gate giant ginger giraffe glass glove goat gold goose grape grass
guitar hammer hammock harbor harvest hat hazel heart hedgehog helmet hero hill hockey honey horizon horse hotel house hundred
hunter ice igloo insect iris iron island ivory jacket jaguar jelly jewel journey juice jungle kangaroo kettle keyboard kitchen
kite kitten koala ladder lake lamp language laptop lemon leopard letter level library light lily lion lizard llama lobster
lunch machine magnet mango maple market marble meadow melon memory message metal midnight milk million mirror mississippi money
monkey moon morning mosquito mother motor mountain mouse museum mushroom music napkin nature needle nest night noodle noon
north notebook number nurse oak ocean octopus office olive onion orange orchard otter owl oyster paddle palace panda panther
paper parrot peach peanut pebble pencil penguin pepper piano pillow pine pizza planet plum pocket poem pond pony potato puzzle
pumpkin puppy queen quilt rabbit raccoon radar radio railway rain rainbow raven ribbon rice river robin robot rocket roof rose
rubber ruby sailor salad salmon sand sandwich school science scissors season secret seven shadow sheep shelf ship silver
sister sky sleep snow soccer soldier south sparrow spider spinach spoon spring squirrel star station storm strawberry street
success summer sun sunset swan table tea teacher temple tennis theater thunder ticket tiger tomato tooth tower train travel tree
trumpet tulip tunnel turkey turtle umbrella uncle valley vanilla village violin volcano wagon wallet walnut water weather west
whale wheat window winter wizard wolf wonder wool yellow zebra zero""".split()
)

ALPHABET = "abcdefghijklmnopqrstuvwxyz"
VOWELS = "aeiou"
ORDINALS = ["1st", "2nd", "3rd", "4th", "5th", "6th", "7th", "8th", "9th", "10th"]
ORDINAL_WORDS = ["first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth"]


def random_word(rng, held_out):
    """A real word, a pronounceable one, or random letters. The words kept for scoring are never trained on."""
    while True:
        choice = rng.random()
        if choice < 0.45:
            word = rng.choice(WORDS)
        elif choice < 0.75:
            word = "".join(
                rng.choice("bcdfghjklmnprstvwz") + rng.choice(VOWELS) + rng.choice(["", "", "n", "r", "s", "l"])
                for _ in range(rng.randint(1, 4))
            )[:10]
        else:
            word = "".join(rng.choice(ALPHABET) for _ in range(rng.randint(3, 9)))
            if rng.random() < 0.4:  # repeated letters, to be counted
                word = "".join(rng.choice(word[:3]) if rng.random() < 0.5 else letter for letter in word)
        if 3 <= len(word) <= 10 and is_reserved_word(word) == held_out:
            return word


def numbered(word):
    """ "1w2h3a4l5e": the number stands first, so that a letter is found again by its number."""
    return [f"{position}{letter}" for position, letter in enumerate(word, 1)]


def plural(count, noun):
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def quoted(rng, word):
    return word if rng.random() < 0.2 else f'"{word}"'


def count(rng, held_out):
    """ "Looking for r: b0 e0 r1 r2 y2." A letter after a space is another token than one within the word, so that each
    finds the one that is looked for as the only one of its kind."""
    word = random_word(rng, held_out)
    letter = rng.choice(word) if rng.random() < 0.8 else rng.choice(ALPHABET)
    steps, seen = [], 0
    for other in word:
        seen += other == letter
        steps.append(f"{other}{seen}")
    slots = {"word": quoted(rng, word), "letter": letter if rng.random() < 0.4 else f'"{letter}"'}
    return Problem(
        "count",
        slots,
        f"Looking for {letter}: {' '.join(steps)}. So {seen}.",
        f'"{letter}" appears {plural(seen, "time")} in "{word}".',
    )


def vowels(rng, held_out):
    word = random_word(rng, held_out)
    steps, seen = [], 0
    for letter in word:
        seen += letter in VOWELS
        steps.append(f"{letter}{seen}")
    walked = "".join(steps)
    return Problem(
        "vowels",
        {"word": quoted(rng, word)},
        f'Vowels: "{walked}". So {seen}.',
        f'"{word}" has {plural(seen, "vowel")}.',
    )


def reverse(rng, held_out):
    word = random_word(rng, held_out)
    backwards = "".join(reversed(numbered(word)))
    return Problem(
        "reverse",
        {"word": quoted(rng, word)},
        f"Letters: {''.join(numbered(word))}. Backwards: {backwards}.",
        f'"{word}" backwards is "{word[::-1]}".',
    )


def length(rng, held_out):
    word = random_word(rng, held_out)
    return Problem(
        "length",
        {"word": quoted(rng, word)},
        f"Letters: {''.join(numbered(word))}. So {len(word)}.",
        f'"{word}" has {len(word)} letters.',
    )


def letter_at(rng, held_out):
    word = random_word(rng, held_out)
    steps = numbered(word)
    position = rng.randint(1, min(len(word), 9))
    slots = {"word": quoted(rng, word), "nth": rng.choice([ORDINALS, ORDINAL_WORDS])[position - 1]}
    return Problem(
        "letter",
        slots,
        f"Letter {position}: {''.join(steps)}. {steps[position - 1]}. So {word[position - 1]}.",
        f'Letter {position} of "{word}" is "{word[position - 1]}".',
    )


def last_letter(rng, held_out):
    word = random_word(rng, held_out)
    steps = numbered(word)
    return Problem(
        "letter.last",
        {"word": quoted(rng, word)},
        f"Last letter: {''.join(steps)}. {steps[-1]}. So {word[-1]}.",
        f'The last letter of "{word}" is "{word[-1]}".',
    )


def letter(rng, held_out):
    return last_letter(rng, held_out) if rng.random() < 0.25 else letter_at(rng, held_out)


PHRASINGS = {
    "count": Phrasings(
        [
            "How many {letter} are in {word}?",
            "How many times does {letter} appear in {word}?",
            "Count the letter {letter} in {word}.",
            "How often does {letter} appear in {word}?",
            "How many times does the letter {letter} appear in {word}?",
            "How many {letter} are there in {word}?",
            "How many letters {letter} are in {word}?",
            "Count {letter} in {word}.",
            "How many {letter}'s are in {word}?",
            "How many {letter}'s are there in the word {word}?",
            "In the word {word}, how many {letter} are there?",
            "Count how many {letter} there are in {word}.",
            "How many {letter} in {word}?",
            "How many {letter} does the word {word} have?",
            (
                "How many [{letter}|{letter}'s|letters {letter}|of {letter}] [are|are there|do you see|do you find|can "
                "you find|do we have] in [{word}|the word {word}][?|]"
            ),
            (
                "[Tell me|Say|Find out|Can you tell me|Do you know|I want to know] how [many times|often] [{letter}|"
                "the letter {letter}|letters {letter}] [appears|occurs|is|comes up] in [{word}|the word {word}][.|?]"
            ),
            (
                "[Tell me|Say|Find out|Can you tell me|Do you know|I want to know] how many [{letter}|{letter}'s|"
                "letters {letter}] [there are|you see|you find] in [{word}|the word {word}][.|?]"
            ),
            (
                "[Tell me|Say|Can you tell me] how many [{letter}|{letter}'s|letters {letter}] [{word}|the word "
                "{word}] has[.|?]"
            ),
            (
                "How [many times|often] [does [{letter}|the letter {letter}|letters {letter}] [appear|occur|come up]|"
                "is [{letter}|the letter {letter}|letters {letter}]|can you find [{letter}|the letter {letter}|letters "
                "{letter}]|do you see [{letter}|the letter {letter}|letters {letter}]] in [{word}|the word {word}][?|]"
            ),
            (
                "In [{word}|the word {word}], how [many {letter} do you [see|find|count]|often does [{letter}|the "
                "letter {letter}|letters {letter}] [appear|occur]|many times is [{letter}|the letter {letter}|letters "
                "{letter}] found]?"
            ),
            (
                "[Count|Can you count|Please count|Find] [all |][the |][{letter}|the letter {letter}|letters {letter}] "
                "in [{word}|the word {word}][.|]"
            ),
            "[What is the number of|Number of] [{letter}|letters {letter}|{letter}'s] in [{word}|the word {word}]?",
            (
                "[{word}|the word {word}][:|.|,] [how|How] many [{letter}|letters {letter}|{letter}'s][?| are there?| "
                "does it have?| are in it?]"
            ),
            (
                "How many [letters {letter}|{letter}'s|of the letters {letter}|times {letter}] does [{word}|the word "
                "{word}] [contain|include]?"
            ),
        ],
        [
            "In {word}, how many times does {letter} appear?",
            "How many {letter} does {word} have?",
            "Tell me how many {letter} are in {word}.",
            "How many of the letter {letter} are in the word {word}?",
        ],
    ),
    "vowels": Phrasings(
        [
            "How many vowels are in {word}?",
            "Count the vowels in {word}.",
            "How many vowels does {word} have?",
            "How many vowels are there in the word {word}?",
            "Number of vowels in {word}?",
            "Count the vowels of the word {word}.",
            "In the word {word}, how many vowels are there?",
            (
                "How many vowels [are|are there|do you see|do you find|can you find|do you count] in [{word}|the word "
                "{word}][?|]"
            ),
            (
                "[Tell me|Say|Find out|Can you tell me|Do you know|I want to know] [how many vowels|the number of "
                "vowels] [there are|are there|you find|you see] in [{word}|the word {word}][.|?]"
            ),
            "[Tell me|Say|Can you tell me] how many vowels [{word}|the word {word}] [has|contains][.|?]",
            "How many vowels does [{word}|it, the word {word},] [contain|include|have]?",
            "[Count|Can you count|Find] [all |][the |]vowels [in|of] [{word}|the word {word}][.|]",
            "[What is the|Give me the|Find the] number of vowels in [{word}|the word {word}][?|.]",
            "[{word}|the word {word}][:|.|,] [how|How] many vowels[?| are there?| does it have?| are in it?]",
            (
                "In [{word}|the word {word}], how many [letters are vowels|of the letters are vowels|vowels do you "
                "find|vowels are there]?"
            ),
            "How many letters [in|of] [{word}|the word {word}] are vowels?",
            "Which number of vowels does [{word}|the word {word}] have?",
        ],
        [
            "How many vowels does the word {word} have?",
            "Tell me how many vowels are in {word}.",
            "How many of the letters in {word} are vowels?",
        ],
    ),
    "reverse": Phrasings(
        [
            "Reverse the word {word}.",
            "Reverse {word}.",
            "Spell {word} backwards.",
            "Write {word} backwards.",
            "What is {word} backwards?",
            "Spell the word {word} in reverse.",
            "Write the word {word} backwards.",
            "What is the reverse of {word}?",
            "Can you reverse {word}?",
            "Reverse the letters of {word}.",
            "Turn {word} around.",
            "How do you spell {word} backwards?",
            "Read {word} backwards.",
            (
                "[Write|Spell|Say|Read|Give me|Show me|Tell me|Print] [{word}|the word {word}] [backwards|in reverse|"
                "from back to front|from the end|from right to left|the other way around][.|]"
            ),
            (
                "[Can|Could] you [write|spell|say|read|reverse|turn around] [{word}|the word {word}][ backwards| the "
                "other way around| from the end| from back to front][?|]"
            ),
            (
                "What [is|would be] [{word}|the word {word}] [spelled |written |][backwards|in reverse|from back to "
                "front|from the end|from right to left|the other way around][?|]"
            ),
            (
                "[Reverse|Turn around|Flip|Invert] [the letters of|the letters in|the order of the letters in|] "
                "[{word}|the word {word}][.|]"
            ),
            (
                "[Give me|Tell me|Show me|Find|Say|What is] the [reverse|reversed word|reversed form|mirror] of "
                "[{word}|the word {word}][.|?]"
            ),
            (
                "How [do you|would you|does one|do I] [write|spell|say|read] [{word}|the word {word}] [backwards|in "
                "reverse|from back to front|from the end|from right to left|the other way around][?|]"
            ),
            (
                "[{word}|the word {word}][:|,|.] [spell|write|reverse|say|Spell|Write|Reverse] it[ backwards| in "
                "reverse| from the end][.|]"
            ),
            (
                "[Tell me|Say|Can you tell me] [how you spell|what you get for|how to write] [{word}|the word {word}] "
                "[backwards|in reverse|from back to front|from the end|from right to left|the other way around][.|?]"
            ),
        ],
        [
            "What is the word {word} spelled backwards?",
            "Write the reverse of {word}.",
            "Please spell the word {word} backwards.",
            "Can you write {word} in reverse?",
        ],
    ),
    "length": Phrasings(
        [
            "How many letters are in {word}?",
            "How many letters does {word} have?",
            "How long is the word {word}?",
            "Count the letters in {word}.",
            "How many letters are there in {word}?",
            "What is the length of {word}?",
            "Count the letters of the word {word}.",
            "How long is {word}?",
            "Number of letters in {word}?",
            "How many letters in {word}?",
            "How many letters [are|are there|do you see|do you count|can you count] in [{word}|the word {word}][?|]",
            (
                "[Tell me|Say|Find out|Can you tell me|Do you know|I want to know] [how many letters [there are|are "
                "there|you count] in [{word}|the word {word}]|how long [{word}|the word {word}] is|how many letters "
                "[{word}|the word {word}] has|the length of [{word}|the word {word}]][.|?]"
            ),
            "[Count|Can you count] [all |][the |]letters [in|of] [{word}|the word {word}][.|]",
            (
                "[What is the|Give me the|Find the|Say the] [length|number of letters] [of|in] [{word}|this word: "
                "{word}|my word {word}][?|.]"
            ),
            "[{word}|the word {word}][:|.|,] [how|How] [many letters|long][?| is it?]",
            (
                "How many letters [long is [{word}|the word {word}]|does [{word}|my word {word}] contain|has [{word}|"
                "the word {word}] got|make up [{word}|the word {word}]]?"
            ),
            "How [long|many letters long] is [{word}|the word {word}]?",
        ],
        [
            "How many letters does the word {word} have?",
            "What is the length of the word {word}?",
            "Tell me how many letters are in {word}.",
        ],
    ),
    "letter": Phrasings(
        [
            "What is the {nth} letter of {word}?",
            "What is the {nth} letter in {word}?",
            "Which letter is {nth} in {word}?",
            "Give me the {nth} letter of {word}.",
            "Which is the {nth} letter of the word {word}?",
            "Find the {nth} letter of {word}.",
            "In the word {word}, what is the {nth} letter?",
            "The {nth} letter of {word}?",
            "[What|Which] [is|was] the {nth} letter [of|in] [{word}|my word {word}][?|]",
            "[Find|Give me|Show me|Say|Name|Print|Write] the {nth} letter [of|in|from] [{word}|the word {word}][.|]",
            (
                "[Can you tell me|Do you know|I want to know|Can you find|Can you say] the {nth} letter [of|in] "
                "[{word}|the word {word}][.|?]"
            ),
            (
                "[Tell me|Say|Can you tell me|Do you know] [which letter is {nth}|which letter comes {nth}|what the "
                "{nth} letter is] in [{word}|the word {word}][.|?]"
            ),
            (
                "[Which|What] letter [is|comes|stands] [{nth}|at the {nth} place|in the {nth} place] in [{word}|the "
                "word {word}]?"
            ),
            (
                "[In|Take|Look at] [{word}|the word {word}][,|.|:] [what|which|What|Which] [is the {nth} letter|letter "
                "comes {nth}|letter is the {nth}]?"
            ),
            (
                "[{word}|the word {word}][:|,|.] [the {nth} letter|which letter is {nth}|what is the {nth} letter|"
                "Which letter is the {nth}]?"
            ),
        ],
        [
            "Tell me the {nth} letter of {word}.",
            "What is the {nth} letter in the word {word}?",
            "In {word}, which letter is {nth}?",
        ],
    ),
    "letter.last": Phrasings(
        [
            "What is the last letter of {word}?",
            "What is the last letter in {word}?",
            "Give me the last letter of {word}.",
            "Which is the last letter of the word {word}?",
            "Find the last letter of {word}.",
            "In the word {word}, what is the last letter?",
            "Which letter does {word} end with?",
            "The last letter of {word}?",
            "[What|Which] is the [last|final] letter [of|in] [{word}|my word {word}][?|]",
            (
                "[Find|Give me|Show me|Say|Name|Print|Write] the [last|final] letter [of|in|from] [{word}|the word "
                "{word}][.|]"
            ),
            (
                "[Can you tell me|Do you know|I want to know|Can you find|Can you say] the [last|final] letter [of|in] "
                "[{word}|the word {word}][.|?]"
            ),
            (
                "[Tell me|Say|Can you tell me|Do you know] [which letter is last|which letter comes last|what the last "
                "letter is] in [{word}|the word {word}][.|?]"
            ),
            (
                "[Which|What] letter [is last|comes last|is at the end|stands at the end|is the last] [in|of] [{word}|"
                "the word {word}]?"
            ),
            (
                "[In|Take|Look at] [{word}|the word {word}][,|.|:] [what|which|What|Which] [is the last letter|letter "
                "comes last|letter is the last]?"
            ),
            (
                "[{word}|the word {word}][:|,|.] [the last letter|which letter is last|what is the last letter|Which "
                "letter is the last]?"
            ),
            "[With which|With what] letter does [{word}|the word {word}] end?",
        ],
        [
            "Tell me the last letter of {word}.",
            "What is the last letter in the word {word}?",
            "In {word}, which letter is last?",
        ],
    ),
}
