"""How questions are worded that calculate."""

from phrasing import Phrasings

PHRASINGS = {
    "add": Phrasings(
        [
            "What is {a} + {b}?",
            "{a} + {b}",
            "{a}+{b}",
            "{a} + {b} = ?",
            "{a}+{b}=?",
            "What is {a} plus {b}?",
            "Add {a} and {b}.",
            "Calculate {a} + {b}.",
            "How much is {a} + {b}?",
            "How much is {a} plus {b}?",
            "What is the sum of {a} and {b}?",
            "Compute {a} + {b}.",
            "Find the sum of {a} and {b}.",
            "What do you get when you add {a} and {b}?",
            "Add {b} to {a}.",
            "What is {a}+{b}?",
            "Work out {a} + {b}.",
            "[What|How much] [is|was|would be|makes|are] [{a} + {b}|{a} plus {b}][?|]",
            (
                "[Calculate|Compute|Work out|Find|Solve|Evaluate|Do|Give me|Tell me|Determine] [{a} + {b}|{a} plus "
                "{b}][.|]"
            ),
            "[Can|Could] you [calculate|compute|work out|find|solve|do|tell me] [{a} + {b}|{a} plus {b}]?",
            (
                "[Find|Give me|Say|Show me|Calculate|Compute|What is|I need|Do you know] the [result|value|answer|"
                "outcome] [of|for|to] [{a} + {b}|{a} plus {b}][.|?]"
            ),
            (
                "[What|How much] [do you get|do I get|comes out|do we get|results] [for|from|with|if you calculate] "
                "[{a} + {b}|{a} plus {b}]?"
            ),
            "[Tell me|Say|Do you know|I want to know] [what|how much] [{a} + {b}|{a} plus {b}] is[.|?]",
            "[{a} + {b}|{a} plus {b}][ is| equals| makes| gives|] [what|how much]?",
            "[What|How much] does [{a} + {b}|{a} plus {b}] [equal|give|come to]?",
            "[Add|Sum|Sum up] [the numbers |] {a} and {b}[.| together.]",
            "[Can|Could] you [add|sum] {a} and {b}?",
            "[What|How much] do [you get when you add |I get if I add |]{a} and {b} [make|together|]?",
            "[What is|Find|Give me|Say|Calculate] the [sum|total] of {a} and {b}[.|?]",
            "I have {a} and get {b} more. How many do I have?",
        ],
        [
            "Tell me the sum of {a} and {b}.",
            "What does {a} + {b} make?",
            "What is the result of {a} + {b}?",
            "Please add {a} and {b}.",
        ],
    ),
    "subtract": Phrasings(
        [
            "What is {a} - {b}?",
            "{a} - {b}",
            "{a}-{b}",
            "{a} - {b} = ?",
            "{a}-{b}=?",
            "What is {a} minus {b}?",
            "Subtract {b} from {a}.",
            "Calculate {a} - {b}.",
            "How much is {a} - {b}?",
            "How much is {a} minus {b}?",
            "What is the difference {a} - {b}?",
            "Compute {a} - {b}.",
            "Take {b} away from {a}.",
            "What is {a}-{b}?",
            "Work out {a} - {b}.",
            "What is left of {a} after taking away {b}?",
            "[What|How much] [is|was|would be|makes|are] [{a} - {b}|{a} minus {b}][?|]",
            (
                "[Calculate|Compute|Work out|Find|Solve|Evaluate|Do|Give me|Tell me|Determine] [{a} - {b}|{a} minus "
                "{b}][.|]"
            ),
            "[Can|Could] you [calculate|compute|work out|find|solve|do|tell me] [{a} - {b}|{a} minus {b}]?",
            (
                "[Find|Give me|Say|Show me|Calculate|Compute|What is|I need|Do you know] the [result|value|answer|"
                "outcome] [of|for|to] [{a} - {b}|{a} minus {b}][.|?]"
            ),
            (
                "[What|How much] [do you get|do I get|comes out|do we get|results] [for|from|with|if you calculate] "
                "[{a} - {b}|{a} minus {b}]?"
            ),
            "[Tell me|Say|Do you know|I want to know] [what|how much] [{a} - {b}|{a} minus {b}] is[.|?]",
            "[{a} - {b}|{a} minus {b}][ is| equals| makes| gives|] [what|how much]?",
            "[What|How much] does [{a} - {b}|{a} minus {b}] [equal|give|come to]?",
            "[Subtract|Take] {b} [from|away from] {a}[.|]",
            "[Can|Could] you [subtract|take] {b} from {a}?",
            "[What|How much] [is left|remains] [if|when] [I|you] [take|subtract] {b} from {a}?",
            "[What is|Find|Give me|Calculate] the difference [of|between] {a} and {b}[.|?]",
            "[What|How much] do you get when you subtract {b} from {a}?",
        ],
        [
            "Tell me the result of {a} minus {b}.",
            "What does {a} - {b} make?",
            "What is the result of {a} - {b}?",
            "Please subtract {b} from {a}.",
        ],
    ),
    "multiply": Phrasings(
        [
            "What is {a} * {b}?",
            "{a} * {b}",
            "{a}*{b}",
            "{a} x {b}",
            "{a} * {b} = ?",
            "What is {a} times {b}?",
            "Multiply {a} by {b}.",
            "Multiply {a} and {b}.",
            "Calculate {a} * {b}.",
            "How much is {a} * {b}?",
            "How much is {a} times {b}?",
            "What is {a} x {b}?",
            "What is the product of {a} and {b}?",
            "Compute {a} * {b}.",
            "What is {a} multiplied by {b}?",
            "Find the product of {a} and {b}.",
            "Work out {a} * {b}.",
            "What do you get when you multiply {a} and {b}?",
            "[What|How much] [is|was|would be|makes|are] [{a} [*|x] {b}|{a} [times|multiplied by] {b}][?|]",
            (
                "[Calculate|Compute|Work out|Find|Solve|Evaluate|Do|Give me|Tell me|Determine] [{a} [*|x] {b}|{a} "
                "[times|multiplied by] {b}][.|]"
            ),
            (
                "[Can|Could] you [calculate|compute|work out|find|solve|do|tell me] [{a} [*|x] {b}|{a} [times|"
                "multiplied by] {b}]?"
            ),
            (
                "[Find|Give me|Say|Show me|Calculate|Compute|What is|I need|Do you know] the [result|value|answer|"
                "outcome] [of|for|to] [{a} [*|x] {b}|{a} [times|multiplied by] {b}][.|?]"
            ),
            (
                "[What|How much] [do you get|do I get|comes out|do we get|results] [for|from|with|if you calculate] "
                "[{a} [*|x] {b}|{a} [times|multiplied by] {b}]?"
            ),
            (
                "[Tell me|Say|Do you know|I want to know] [what|how much] [{a} [*|x] {b}|{a} [times|multiplied by] "
                "{b}] is[.|?]"
            ),
            "[{a} [*|x] {b}|{a} [times|multiplied by] {b}][ is| equals| makes| gives|] [what|how much]?",
            "[What|How much] does [{a} [*|x] {b}|{a} [times|multiplied by] {b}] [equal|give|come to]?",
            "[Multiply|Take] {a} [times|with|by] {b}[.|]",
            "[Can|Could] you multiply {a} [by|with|and] {b}?",
            "[What is|Find|Give me|Say|Calculate] the product of {a} and {b}[.|?]",
            "[What|How much] do [you|I] get [when|if] [you|I] multiply {a} [by|and|with] {b}?",
        ],
        [
            "Tell me the product of {a} and {b}.",
            "What does {a} * {b} make?",
            "What is the result of {a} * {b}?",
            "Please multiply {a} by {b}.",
        ],
    ),
    "divide": Phrasings(
        [
            "What is {a} / {b}?",
            "{a} / {b}",
            "{a}/{b}",
            "{a} / {b} = ?",
            "What is {a} divided by {b}?",
            "Divide {a} by {b}.",
            "Calculate {a} / {b}.",
            "How much is {a} / {b}?",
            "How much is {a} divided by {b}?",
            "Compute {a} / {b}.",
            "How many times does {b} go into {a}?",
            "Work out {a} / {b}.",
            "Calculate {a} divided by {b}.",
            "[What|How much] [is|was|would be|makes|are] [{a} / {b}|{a} [divided by|over] {b}][?|]",
            (
                "[Calculate|Compute|Work out|Find|Solve|Evaluate|Do|Give me|Tell me|Determine] [{a} / {b}|{a} [divided "
                "by|over] {b}][.|]"
            ),
            "[Can|Could] you [calculate|compute|work out|find|solve|do|tell me] [{a} / {b}|{a} [divided by|over] {b}]?",
            (
                "[Find|Give me|Say|Show me|Calculate|Compute|What is|I need|Do you know] the [result|value|answer|"
                "outcome] [of|for|to] [{a} / {b}|{a} [divided by|over] {b}][.|?]"
            ),
            (
                "[What|How much] [do you get|do I get|comes out|do we get|results] [for|from|with|if you calculate] "
                "[{a} / {b}|{a} [divided by|over] {b}]?"
            ),
            "[Tell me|Say|Do you know|I want to know] [what|how much] [{a} / {b}|{a} [divided by|over] {b}] is[.|?]",
            "[{a} / {b}|{a} [divided by|over] {b}][ is| equals| makes| gives|] [what|how much]?",
            "[What|How much] does [{a} / {b}|{a} [divided by|over] {b}] [equal|give|come to]?",
            "[Can|Could] you divide {a} by {b}?",
            "[What|How much] do [you|I] get [when|if] [you|I] divide {a} by {b}?",
            "How often does {b} [go into|fit into] {a}?",
            "[Share|Split] {a} [by|into] {b} [equal parts|parts|].",
            "[What is|Find|Give me|Calculate] the quotient of {a} and {b}[.|?]",
        ],
        [
            "Tell me the result of {a} divided by {b}.",
            "What does {a} / {b} make?",
            "What is the result of {a} / {b}?",
            "Please divide {a} by {b}.",
        ],
    ),
    "parity.which": Phrasings(
        [
            "Is {a} even or odd?",
            "Is {a} odd or even?",
            "Is the number {a} even or odd?",
            "{a}: even or odd?",
            "Tell me if {a} is even or odd.",
            "Even or odd: {a}?",
            "Is {a} an even or an odd number?",
            (
                "[Is|Would you call|Do you call] [the number |]{a} [even or odd|odd or even|an even or an odd number|"
                "an odd or an even number][?|]"
            ),
            (
                "[Tell me|Say|Find out|Can you tell me|Do you know|Check] [if|whether] [the number |]{a} is [odd or "
                "even|an even or an odd number|even or odd| an odd or even number][.|?]"
            ),
            "[Odd or even|Even or odd][:|?] [the number |]{a}[?|]",
            "{a}[:|,|.|] [is it |Is it |][odd or even|even or odd]?",
            "[What is|Which is it,] [the number |]{a}[:|,] [odd or even|even or odd]?",
            "[Would you say|Do you think] [that |][the number |]{a} is even or odd?",
            "[What|Which] parity [has|does] [the number |]{a} [have|]?",
        ],
        ["Would you say {a} is odd or even?", "Is the number {a} odd or even?", "Tell me whether {a} is even or odd."],
    ),
    "parity.is_even": Phrasings(
        [
            "Is {a} even?",
            "Is {a} an even number?",
            "Is the number {a} even?",
            "{a} is even. True?",
            "Is it true that {a} is even?",
            "[Is|Would you call] [the number |]{a} [really |][even|an even number][?|, yes or no?]",
            (
                "[Tell me if|Say if|Tell me whether|Can you tell me if|Do you think that|Do you think|Check if|Check "
                "whether] [the number |]{a} is [even|an even number][.|?]"
            ),
            "[I think|I say|They say] [that |][the number |]{a} is even. [Is that|Am I|Is this] [right|true|correct]?",
            "[the number |]{a} is [even|an even number][. Right?|, right?|, true or false?|. Is that true?]",
            "[Yes or no|Say|Answer]: is [the number |]{a} even?",
            "Would you say [the number |]{a} is an even number?",
        ],
        ["Would you say that {a} is even?", "Tell me: is {a} even?"],
    ),
    "parity.is_odd": Phrasings(
        [
            "Is {a} odd?",
            "Is {a} an odd number?",
            "Is the number {a} odd?",
            "{a} is odd. True?",
            "Is it true that {a} is odd?",
            "[Is|Would you call] [the number |]{a} [really |][odd|an odd number][?|, yes or no?]",
            (
                "[Tell me if|Say if|Tell me whether|Can you tell me if|Do you think that|Do you think|Check if|Check "
                "whether] [the number |]{a} is [odd|an odd number][.|?]"
            ),
            "[I think|I say|They say] [that |][the number |]{a} is odd. [Is that|Am I|Is this] [right|true|correct]?",
            "[the number |]{a} is [odd|an odd number][. Right?|, right?|, true or false?|. Is that true?]",
            "[Yes or no|Say|Answer]: is [the number |]{a} odd?",
            "Would you say [the number |]{a} is an odd number?",
        ],
        ["Would you say that {a} is odd?", "Tell me: is {a} odd?"],
    ),
}
