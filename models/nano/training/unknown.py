"""The honest answer to everything that the model has not learned."""

import re

from phrasing import Phrasings, Problem

THOUGHT = "I have not learned this."
ANSWER = "Sorry, I do not know that. Ask me about numbers, words, days or units."

SUBJECTS = {
    "country": """France, Germany, Italy, Spain, Japan, China, India, Brazil, Canada, Mexico, Egypt, Kenya, Norway, Sweden,
        Poland, Greece, Turkey, Peru, Chile, Cuba, Iran, Iraq, Nepal, Ghana, Australia, Austria, Belgium, Denmark, Finland,
        Ireland""",
    "city": """Paris, London, Berlin, Rome, Madrid, Tokyo, Beijing, Delhi, Cairo, Lima, Oslo, Vienna, Dublin, Sydney, Boston,
        Chicago, Moscow, Athens, Prague, Lisbon""",
    "person": """Einstein, Newton, Shakespeare, Mozart, Darwin, Picasso, Napoleon, Cleopatra, Gandhi, Columbus, Beethoven,
        Galileo, Plato, Lincoln, Edison, Tesla, Caesar, Homer, Bach, Goethe""",
    "topic": """love, war, physics, chemistry, music, history, rain, winter, friendship, computers, football, cooking,
        biology, religion, politics, money, time, space, dinosaurs, robots, cars, cats, dogs, space travel, gravity, light,
        energy, poetry, art, philosophy, economics, medicine, law, language, evolution, the moon, the sun, the ocean,
        black holes, the weather, happiness, volcanoes""",
    "thing": """a car, a house, a tree, a computer, a phone, the moon, the sun, an atom, a star, a plane, a whale, a book,
        the internet, a cake, a bridge, an engine, bread, coffee, a rocket, a clock, a virus, a battery, a piano, a cloud,
        glass""",
    "language": "French, German, Spanish, Italian, Latin, Greek, Chinese, Japanese, Russian, Polish, Dutch, Korean",
    "word": "house, tree, water, friend, morning, dog, bread, school, window, street, cat, love, night, garden",
    "job": "poem, story, song, joke, letter, essay, recipe, speech, program, riddle, tale, list",
    "year": ", ".join(map(str, range(1700, 2030, 7))),
    "n": ", ".join(map(str, range(2, 2000, 37))),
}
SUBJECTS = {name: re.split(r",\s+", values) for name, values in SUBJECTS.items()}


def fallback(rng):
    slots = {name: rng.choice(values) for name, values in SUBJECTS.items()}
    return Problem("fallback", slots, THOUGHT, ANSWER)


PHRASINGS = {
    "fallback": Phrasings(
        [
            "What is the capital of {country}?",
            "Who wrote {topic}?",
            "Write a {job} about {topic}.",
            "Tell me a {job}.",
            "Who was {person}?",
            "When was {person} born?",
            "How does {thing} work?",
            "Translate {word} to {language}.",
            "What is {topic}?",
            "Why is the sky blue?",
            "How tall is {thing}?",
            "How many people live in {country}?",
            "Who is the president of {country}?",
            "What is the weather in {city}?",
            "Where is {city}?",
            "Do you like {topic}?",
            "Tell me about {country}.",
            "Tell me about {topic}.",
            "What happened in {year}?",
            "Explain {topic}.",
            "Write a {job}.",
            "Can you write a {job} about {thing}?",
            "How old is {person}?",
            "What do you think about {topic}?",
            "How far is {city} from {city}?",
            "How do I make {thing}?",
            "What does {word} mean?",
            "Is {city} in {country}?",
            "What language do they speak in {country}?",
            "What is the square root of {n}?",
            "How much does {thing} cost?",
            "Who discovered {topic}?",
            "When did {person} die?",
            "Sing a {job}.",
            "Give me a recipe for {thing}.",
            "Is {n} a prime number?",
            "What is the population of {city}?",
            "Who won the game in {year}?",
            "Why do people like {topic}?",
            "Who invented {thing}?",
            "What color is {thing}?",
            "How heavy is {thing}?",
            "Play {topic}.",
            "Once upon a time",
            "Describe {thing}.",
            "Say something about {topic}.",
            "Which river runs through {city}?",
            "Recommend a book about {topic}.",
            "How do you say {word} in {language}?",
            "What is the best {job} about {topic}?",
            "I am bored.",
            "I love {topic}.",
            "Summarize the {job} of {person}.",
            "Write code for {thing}.",
            "Write a program in Python.",
            "What time is it?",
            "What is the meaning of life?",
            "Do you know {person}?",
            "Did {person} visit {city}?",
            "Does {thing} need energy?",
            "Name a famous {job}.",
            "List the cities of {country}.",
            "Where was {person} born?",
            "When was {city} founded?",
            "What rhymes with {word}?",
            "Teach me {language}.",
            "Draw {thing}.",
            "Which country is the largest?",
            "How many planets are there?",
            "What is the color of {thing}?",
            "Tell me something interesting.",
            "Is {topic} important?",
            "What did {person} discover?",
            "Who painted {thing}?",
            "Book a flight to {city}.",
            "My {word} is broken.",
            "The {word} is near the {word}.",
            "{person} lived in {city}.",
            "What is {thing} made of?",
            "How can I learn {language}?",
            (
                "[Tell me|Explain to me|Can you tell me|Do you know|I want to know|Say|Could you tell me|Can you say|"
                "Please tell me|I would like to know] [something|a bit|more|all|everything|a fact|some facts|a little] "
                "about [{country}|{city}|{person}|{topic}|{thing}|{language}][.|?|]"
            ),
            (
                "[Tell me|Explain to me|Can you tell me|Do you know|I want to know|Say|Could you tell me|Can you say|"
                "Please tell me|I would like to know] [who {person} was|what {person} did|where {city} is|what {thing} "
                "is|why {topic} matters|how {thing} works|how old {person} was|who invented {thing}|when {city} was "
                "built|what {topic} means|who {person} is|how to make {thing}|how big {city} is|where {country} is][.|"
                "?|]"
            ),
            "[What|How|Where|When|Why] [is|was|are|were] [{country}|{city}|{person}|{topic}|{thing}|{language}][?|]",
            (
                "[What|Which] [city|town|river|country|language|food|animal|king|war|sea|mountain|flag|person] [is|"
                "was] [the|a] [capital|largest|most famous|best|oldest|richest|most beautiful|biggest|first|name|"
                "symbol] [in|of|for] [{country}|{city}|{person}|{topic}][?|]"
            ),
            (
                "How [big|old|far|large|deep|long|high|tall|heavy|fast|strong|rich|important|beautiful|hot|cold] [is|"
                "was] [{country}|{city}|{person}|{topic}|{thing}|{language}][?|]"
            ),
            (
                "How many [people|people live|cities|rivers|animals|houses|children|books|lakes|students] [are|live|"
                "were|work] in [{country}|{city}][?|]"
            ),
            (
                "[Who|When] [was|is|discovered|invented|painted|built|founded|wrote|made|destroyed|loved|visited|"
                "found] [{country}|{city}|{person}|{topic}|{thing}|{language}][?|]"
            ),
            (
                "[Write|Make|Give me|Compose|Tell me|Invent|Create|Can you write|Could you write|Do you have|Read me|"
                "Please write|Think of] [a|a short|a long|a nice|a funny|a little|another|a good|a sad] {job} [about|"
                "for|on|with|by] [{country}|{city}|{person}|{topic}|{thing}|{language}][.|?|!|]"
            ),
            (
                "[Do|Did|Does|Can|Could|Will|Should] [you|I|we|people|{person}|they] [like|know|love|visit|understand|"
                "see|buy|need|want|find|learn|use|remember|hate|believe in] [{country}|{city}|{person}|{topic}|{thing}|"
                "{language}][?|]"
            ),
            (
                "[Where|When|How|Why] [does|did|do|can|will] [{person}|people|they|a man|the king] [live|work|come "
                "from|go to|die|travel to {city}|learn {language}|like {topic}|make {thing}|use {thing}|speak "
                "{language}][?|]"
            ),
            '[What|Which word] is [{word}|the word {word}|"{word}"|good {word}] in {language}[?|]',
            (
                '[Translate|Say|Write|Put] [{word}|"{word}"|the word {word}|this text|this sentence] [to|in|into] '
                '{language}[.|]'
            ),
            (
                '[How|Can you tell me how|Do you know how] [do|would] [you|I|people] [say|write|spell|pronounce] '
                '[{word}|"{word}"] in {language}[?|]'
            ),
            (
                "[What|Why] [do you think of|do you like about|is special about|is so good about|is interesting about|"
                "do people say about|happens with|happened to|is famous about|is new about|is wrong with|do you know "
                "of|can you say about] [{country}|{city}|{person}|{topic}|{thing}|{language}][?|]"
            ),
            (
                "[Can|Could|Would|Will] you [explain|describe|draw|teach me|show me|help me with|compare|translate|"
                "summarize|recommend] [{country}|{city}|{person}|{topic}|{thing}|{language}][ to me| please|][?|]"
            ),
            (
                "[Explain|Describe|Draw|Teach me|Show me|Summarize|Define|Recommend|Analyze|Discuss] [{country}|{city}|"
                "{person}|{topic}|{thing}|{language}][ to me| please| briefly| in detail|][.|]"
            ),
            (
                "[I like|I love|I hate|I know|I need|I want|I live in|I come from|I have seen|I am in|My friend likes|"
                "We talk about|He was in|She has] [{country}|{city}|{person}|{topic}|{thing}|{language}][.|!|]"
            ),
            (
                "[What|Which] [is|are] the [price|cost|color|size|weight|shape|name|history|age|purpose|meaning|future|"
                "origin|taste|speed|best part] of [{country}|{city}|{person}|{topic}|{thing}|{language}][?|]"
            ),
            "[What|Why|How] [rhymes with|ends with|means] [{word}|{thing}|{topic}][?|]",
            (
                "[Who|What] [is|was|will be] [the president|the king|the queen|the leader|the capital|the currency|the "
                "weather|the national food|the main language|the flag] [in|of] [{country}|{city}][?|]"
            ),
            "[What|Which things|Who] [made|makes] {person} [so |][famous|great|known|important|rich][?|]",
            (
                "[Is|Was|Are] [{country}|{city}|{person}|{topic}|{thing}|{language}] [in {country}|good|bad|important|"
                "true|famous|dead|old|dangerous|beautiful|near {city}|a problem|healthy|a city][?|]"
            ),
            (
                "[Buy|Order|Book|Find|Open|Start|Play|Sing|Cook|Send|Paint|Build] [me |][a|the|some|my] [ticket|table|"
                "music|song|film|mail|car|game|pizza|hotel|room|picture|flight] [for|about|in|to|with|from] [{country}|"
                "{city}|{person}|{topic}|{thing}|{language}][.|!|]"
            ),
            "[What|When|Where] [happened|was] [in|on|to] [{year}|{city} in {year}|{country} in {year}][?|]",
            (
                "[Is {n} prime|What is the root of {n}|What is {n} squared|Is {n} a square|What are the factors of {n}|"
                "What is half of {n} percent|Write {n} in Roman numbers|What is {n} in binary][?|]"
            ),
            (
                "[The|A|My|This|Our|Your] {word} [is|was|has|needs|looks|seems] [red|broken|old|very nice|my friend|"
                "near the {word}|gone|in {city}|like {thing}|too big|a {job}][.|]"
            ),
            (
                "{person} [lived in|was from|wrote about|liked|saw|discovered|knew|painted|died in|never saw] "
                "[{country}|{city}|{person}|{topic}|{thing}|{language}][.|]"
            ),
        ],
        [
            "Which city is the capital of {country}?",
            "Do you know a {job} about {topic}?",
            "What do you know about {person}?",
            "Where does {person} come from?",
            "How many people live in {city}?",
            "Tell me a {job} about {thing}.",
            "What is the {language} word for {word}?",
            "Can you explain {topic} to me?",
            "Why is {topic} important?",
            "How big is {country}?",
            "Did {person} like {topic}?",
            "What is so special about {city}?",
            "Who lives in {city}?",
            "Write a short {job} for {person}.",
            "What is {person} famous for?",
        ],
    ),
}
