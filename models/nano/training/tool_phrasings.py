"""How what the tools of tools.py are for is asked for."""

from phrasing import Phrasings

PHRASINGS = {
    "weather": Phrasings(
        [
            "What is the weather [in|like in|for] {place}[?|]",
            "[What's|How's] the weather [in|like in|for] {place}[?| today?|]",
            "What is the [current |]weather [in|like in] {place} [today|now|this morning|at the moment]?",
            "How is the weather in {place}[ today| now| this evening|]?",
            "[The weather|Weather|Current weather|Weather report] [in|for|of] {place}[?|.| please|]",
            (
                "[Tell me|Give me|Show me|Get|Check|Find|Fetch] the [weather|current weather|temperature|forecast] "
                "[in|for|of] {place}[ now| today|][.|]"
            ),
            "Is it [raining|cold|warm|sunny|hot|snowing|windy|wet|nice] in {place}[ now| today|]?",
            "What is the temperature in {place}[ now| today|]?",
            "What temperature [is it|do they have] in {place}?",
            "How [warm|cold|hot|wet|windy] is it in {place}[ now| today|]?",
            "[I want to know|I need|I would like to know] the [weather|temperature] in {place}[.|]",
            "Do I need [an umbrella|a coat|a hat|boots|a jacket] in {place}[ today|]?",
            "[Can|Could|Would] you [check|get|tell me|look up] the [weather|temperature] [in|for] {place}?",
            "I [travel|fly|go|move] to {place}[. |, |; ][what|how] is the weather there?",
            "Will it [rain|snow|be warm|be cold] in {place}[ tomorrow| today|]?",
            "I am in {place}[. |, ][what|how] is the weather[ here|]?",
        ],
        [
            "What's the weather like in {place} right now?",
            "Please check the weather report for {place}.",
            "Does it rain in {place} today?",
            "Can you tell me how the weather is in {place}?",
            "I would like the weather report for {place}.",
        ],
    ),
    "time": Phrasings(
        [
            "What time is it in {place}[ now| right now|][?|]",
            "What's the [current|local] time in {place}?",
            "[Tell me|Give me|Show me|Get|Check|Find] the [time|current time|local time] in {place}[.|]",
            "What is the [time|current time|local time|hour] in {place}[?| now?]",
            "[The time|Time|Local time|Current time] in {place}[?|.| please|]",
            "[How late is it|Is it late|Is it morning|Is it night|Is it noon] in {place}[ now|]?",
            "[I want to know|I need|I would like to know] the time in {place}[.|]",
            "[Can|Could|Would] you [check|get|tell me] the [time|local time] in {place}?",
            "What does the clock say in {place}?",
            "I [call|phone|meet] a friend in {place}[. |, ]what time is it there?",
            "Is it [day or night|morning or evening] in {place}?",
        ],
        [
            "What's the time in {place}?",
            "Please tell me what time it is in {place}.",
            "Which time do they have in {place}?",
            "Do you know the local time of {place}?",
        ],
    ),
    "search": Phrasings(
        [
            "[Search|Search the web|Look|Search online] for {topic}[.|]",
            "[Look up|Google|Research|Find] {topic}[.|]",
            "[Find|Get|Look up|Search for] [information|news|facts|something|articles] [about|on] {topic}[.|]",
            "[What can you find|What do you find|Find out more|Find out|What is new] about {topic}[?|]",
            "[Can|Could|Would] you [search for|look up|find out about|find] {topic}?",
            "[I need|I want|I look for|I would like] [information|news|facts] [about|on] {topic}[.|]",
            "[Is there|Do you find] [anything|any news|something] [about|on] {topic}?",
            "[Please do a|Do a|Start a|Make a] search [for|on|about] {topic}[.|]",
            "[Tell me|Show me|Say] what [the web|the internet] [says|knows] about {topic}[.|]",
        ],
        [
            "Please search the internet for {topic}.",
            "Can you find anything on {topic}?",
            "Look for information about {topic}.",
            "I want to find out about {topic}.",
        ],
    ),
    "message": Phrasings(
        [
            '[Send|Write|Text] "{text}" to {person}[.|]',
            '[Send|Write] {person} [the message|a message:|a note:|the text] "{text}"[.|]',
            '[Send|Write] a [message|note|text] to {person}[: |, saying | that says | with the text ]"{text}"[.|]',
            '[Tell|Message|Text] {person}: "{text}"[.|]',
            '[Can|Could|Would] you [send|write] "{text}" to {person}?',
            '[I want to|I need to|Let me|I would like to] [send|write] "{text}" to {person}[.|]',
            '[Message|Note|Text] [to|for] {person}: "{text}"[.|]',
            'Let {person} know: "{text}"[.|]',
            "[Send|Write] {person} [the message|a message:|a note:] {text}",
            "[Tell|Message] {person}: {text}",
            "[Message|Note|Text] [to|for] {person}: {text}",
        ],
        [
            'Please send the message "{text}" to {person}.',
            'Write to {person}: "{text}"',
            'I want you to tell {person} "{text}".',
            'Can you send {person} the message "{text}"?',
        ],
    ),
    "timer": Phrasings(
        [
            "[Set|Start|Make|Create] [a|the|my] timer [for|of|to] {n} {unit}[.|]",
            "[Set|Start] a {n} {single} timer[.|]",
            "[Timer|Set timer|Start timer|New timer][:|,| for] {n} {unit}[.|]",
            "[Wake me|Remind me|Call me|Ring|Tell me] in {n} {unit}[.|]",
            "[Can|Could|Would] you [set|start] a timer [for|of] {n} {unit}?",
            "[I need|I want|I would like] a timer [for|of] {n} {unit}[.|]",
            "[Count|Count down] {n} {unit}[.|]",
            "[The tea|My tea|The egg|The cake|The pizza] needs {n} {unit}[. |, ]set a timer[.|]",
            "Let the [timer|clock] [run|ring] [for|in|after] {n} {unit}[.|]",
        ],
        [
            "Please start the timer for {n} {unit}.",
            "I want a timer that rings in {n} {unit}.",
            "Give me a timer of {n} {unit}.",
        ],
    ),
    # Two of one kind, or one after another. {place} and {other} are places.
    "weather.two": Phrasings(
        [
            "What is the weather in {place} and [in |]{other}[?|]",
            "How is the weather in {place} and [in |]{other}[?| today?]",
            "[Compare|Tell me|Get|Check|Give me|Show me|Find] the weather [in|of|for] {place} and {other}[.|]",
            "[Weather|The weather] in {place} and {other}[?|.|]",
            "Is it [warmer|colder|hotter|nicer] in {place} or [in |]{other}?",
            "[Can|Could] you [check|get|tell me] the weather in {place} and [in |]{other}?",
            "What is the temperature in {place} and [in |]{other}?",
            "I [go|fly|travel] to {place} and then to {other}[. |, ]how is the weather?",
            "[First|Both] the weather in {place}, then in {other}[.|]",
        ],
        [
            "What's the weather like in {place} and {other}?",
            "Please check the weather both in {place} and in {other}.",
            "Where is it warmer, in {place} or in {other}?",
        ],
    ),
    "time.two": Phrasings(
        [
            "What time is it in {place} and [in |]{other}[?|]",
            "[Compare|Tell me|Get|Check|Give me|Show me|Find] the [local |]time in {place} and {other}[.|]",
            "[Time|The time|The local time] in {place} and {other}[?|.|]",
            "Is it later in {place} or [in |]{other}?",
            "[Can|Could] you [check|get|tell me] the time in {place} and [in |]{other}?",
            "What is the local time in {place} and [in |]{other}?",
        ],
        [
            "What's the time in {place} and {other}?",
            "Please tell me the time both in {place} and in {other}.",
            "Where is it later, in {place} or in {other}?",
        ],
    ),
    "weather_time": Phrasings(
        [
            "What is the weather in {place} and what time is it in {other}?",
            "[Tell me|Get|Check|Find|Give me] the weather in {place} and the [local |]time in {other}[.|]",
            "[Weather|The weather] in {place} and [time|the time] in {other}[?|.|]",
            "How is the weather in {place}[, and|; and|? And] what time is it in {other}?",
        ],
        [
            "What's the weather in {place} and what's the time in {other}?",
            "Please check the weather in {place} and the time in {other}.",
        ],
    ),
    "time_weather": Phrasings(
        [
            "What time is it in {place} and what is the weather in {other}?",
            "[Tell me|Get|Check|Find|Give me] the [local |]time in {place} and the weather in {other}[.|]",
            "[Time|The time] in {place} and [weather|the weather] in {other}[?|.|]",
            "What time is it in {place}[, and|; and|? And] how is the weather in {other}?",
        ],
        [
            "What's the time in {place} and what's the weather in {other}?",
            "Please check the time in {place} and the weather in {other}.",
        ],
    ),
    # {noun} is what a tool tells of {value}.
    "property": Phrasings(
        [
            "What is the [current |]{noun} [of|for] {value}[?|]",
            "[Get|Show|Show me|Give me|Find|Look up|Tell me|Check|Fetch|Read] the [current |]{noun} [of|for] {value}[.|]",
            "[The {noun}|{noun}] [of|for] {value}[?|.| please|]",
            "How [high|large|good|low] is the {noun} of {value}?",
            "[Can|Could|Would] you [get|check|find|look up|tell me] the {noun} [of|for] {value}?",
            "[I need|I would like|I look for] the {noun} [of|for] {value}[.|]",
            "{value}: [what is|tell me|get|show] the {noun}[?|.|]",
            "Do you know the {noun} of {value}?",
        ],
        [
            "What's the {noun} of {value}?",
            "I want to know the {noun} for {value}.",
            "Which {noun} does {value} have?",
            "Please look at the {noun} of {value}.",
        ],
    ),
    "add_multiply": Phrasings(
        [
            "What is ({a} + {b}) * {c}?",
            "[Add|Sum] {a} and {b}[, then| and then|, and] multiply [the result|it|the sum] by {c}[.|]",
            "[Compute|Calculate|Work out|Find|Solve] ({a} + {b}) * {c}[.|]",
            "({a} + {b}) * {c}[?| = ?|]",
            "{a} plus {b}, [all |and that |the sum |]times {c}[?|]",
            "What do I get if I add {a} and {b} and multiply [the result|it|the sum] by {c}?",
            "Take the sum of {a} and {b}[, and| and|, then] multiply it by {c}[.|]",
        ],
        [
            "How much is ({a} + {b}) * {c}?",
            "First add {a} and {b}, then multiply the result by {c}.",
            "What is the sum of {a} and {b}, multiplied by {c}?",
        ],
    ),
    "weather_message": Phrasings(
        [
            "[Get|Check|Find|Look up] the weather in {place} and [send|write|text] it to {person}[.|]",
            "[Send|Tell|Write|Text] {person} [the weather|how the weather is|what the weather is] in {place}[.|]",
            "What is the weather in {place}? [Send|Write|Text] it to {person}[.|]",
            "[Send|Write] the weather [in|of|for] {place} to {person}[.|]",
            "[Can|Could] you [send|tell] {person} the weather in {place}?",
            "{person} wants to know the weather in {place}[. |, ][send it|write a message|tell {person}][.|]",
        ],
        [
            "Please tell {person} how the weather in {place} is.",
            "Look up the weather in {place}, then send it to {person}.",
            "Let {person} know the weather in {place}.",
        ],
    ),
    # A tool of any name, called by it or by what it does; {arguments} names what it is given.
    "named": Phrasings(
        [
            "[Use|Call|Run|Invoke|Execute|Try|Start] {tool} [with|for|:] {arguments}[.|]",
            "[Use|Call|Run|Invoke|Execute] the [tool|function] {tool} [with|for|:] {arguments}[.|]",
            "[Can|Could|Would] you [use|call|run|invoke] {tool} with {arguments}?",
            "[I want|I need|I would like] [{tool}|to call {tool}|to run {tool}] with {arguments}[.|]",
            "{tool}[:| with|,] {arguments}[.|]",
            "[With|Given] {arguments}[, | ][call|use|run] {tool}[.|]",
            "[Make|Do] a call [to|of] {tool} with {arguments}[.|]",
            "[Let|Have] {tool} run with {arguments}[.|]",
        ],
        [
            "Please call {tool} with {arguments}.",
            "I want you to use {tool} with {arguments}.",
            "Use the tool called {tool} with {arguments}.",
        ],
    ),
    "named.bare": Phrasings(
        [
            "[Use|Call|Run|Invoke|Execute|Try|Start] {tool}[.|]",
            "[Use|Call|Run|Invoke|Execute] the [tool|function] {tool}[.|]",
            "[Can|Could|Would] you [use|call|run|invoke] {tool}?",
            "[I want|I need|I would like] [{tool}|to call {tool}|to run {tool}][.|]",
        ],
        ["Please call {tool}.", "I want you to use {tool}.", "Use the tool called {tool}."],
    ),
    "named.two": Phrasings(
        [
            (
                "[Use|Call|Run|Invoke] {tool} with {arguments}[, and| and|; also| and also] {other_tool} with "
                "{other_arguments}[.|]"
            ),
            "[Use|Call|Run] both {tool} with {arguments} and {other_tool} with {other_arguments}[.|]",
            "[Can|Could] you [use|call|run] {tool} with {arguments} and {other_tool} with {other_arguments}?",
        ],
        [
            "Please call {tool} with {arguments} and {other_tool} with {other_arguments}.",
            "At once, call {tool} with {arguments} and {other_tool} with {other_arguments}.",
        ],
    ),
    "named.then": Phrasings(
        [
            (
                "[Use|Call|Run|Invoke] {tool} with {arguments}[, then|. Then|, and then|, after that] [use|call|run|] "
                "{other_tool} with {other_arguments}[.|]"
            ),
            "[First|At first] [use|call|run] {tool} with {arguments}, [then|after that] {other_tool} with {other_arguments}[.|]",
        ],
        [
            "Please call {tool} with {arguments} and then {other_tool} with {other_arguments}.",
            "Start with {tool} with {arguments}, then go on with {other_tool} with {other_arguments}.",
        ],
    ),
    "task": Phrasings(
        [
            "{verb} [a|the|my|this] {noun} [with|:|, ] {arguments}[.|]",
            "{verb} [a|the|my|this] {noun}[. |: ]{arguments}[.|]",
            "[Can|Could|Would] you {verb_small} [a|the|my] {noun} with {arguments}?",
            "[I want to|I need to|I would like to|Let us|Help me to] {verb_small} [a|the|my|this] {noun} with {arguments}[.|]",
            "[With|Given] {arguments}, {verb_small} [a|the|my|this] {noun}[.|]",
            "[There is|We have] a {noun} to {verb_small}[: | with ]{arguments}[.|]",
        ],
        [
            "Please {verb_small} the {noun} with {arguments}.",
            "I want you to {verb_small} a {noun} with {arguments}.",
            "My {noun}: {verb_small} it with {arguments}.",
        ],
    ),
    "task.bare": Phrasings(
        [
            "{verb} [a|the|my|this] {noun}[.|]",
            "[Can|Could|Would] you {verb_small} [a|the|my] {noun}?",
            "[I want to|I need to|I would like to|Let us] {verb_small} [a|the|my|this] {noun}[.|]",
            "[There is|We have] a {noun} to {verb_small}[.|]",
        ],
        ["Please {verb_small} the {noun}.", "I want you to {verb_small} a {noun}."],
    ),
}
