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
        if len(word) >= 3 and is_reserved_word(word) == held_out:
            return word


def numbered(word):
    return " ".join(f"{letter}{position}" for position, letter in enumerate(word, 1))


def plural(count, noun):
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def quoted(rng, word):
    return word if rng.random() < 0.25 else f'"{word}"'


def count(rng, held_out):
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
    return Problem(
        "vowels",
        {"word": quoted(rng, word)},
        f"Vowels: {' '.join(steps)}. So {seen}.",
        f'"{word}" has {plural(seen, "vowel")}.',
    )


def reverse(rng, held_out):
    word = random_word(rng, held_out)
    backwards = " ".join(reversed(numbered(word).split()))
    return Problem(
        "reverse",
        {"word": quoted(rng, word)},
        f"Letters: {numbered(word)}. Backwards: {backwards}.",
        f'"{word}" backwards is "{word[::-1]}".',
    )


def length(rng, held_out):
    word = random_word(rng, held_out)
    return Problem(
        "length",
        {"word": quoted(rng, word)},
        f"Letters: {numbered(word)}. So {len(word)}.",
        f'"{word}" has {len(word)} letters.',
    )


def letter_at(rng, held_out):
    word = random_word(rng, held_out)
    position = rng.randint(1, min(len(word), 10))
    slots = {"word": quoted(rng, word), "nth": rng.choice([ORDINALS, ORDINAL_WORDS])[position - 1]}
    return Problem(
        "letter",
        slots,
        f"Letter {position}: {numbered(word[:position])}. So {word[position - 1]}.",
        f'Letter {position} of "{word}" is "{word[position - 1]}".',
    )


def last_letter(rng, held_out):
    word = random_word(rng, held_out)
    return Problem(
        "letter.last",
        {"word": quoted(rng, word)},
        f"Last letter: {numbered(word)}. So {word[-1]}.",
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
        ],
        [
            "Tell me the last letter of {word}.",
            "What is the last letter in the word {word}?",
            "In {word}, which letter is last?",
        ],
    ),
}
