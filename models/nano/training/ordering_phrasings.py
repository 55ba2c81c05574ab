"""How questions are worded that compare numbers or put them in order."""

from phrasing import Phrasings

LARGER, SMALLER = "[larger|bigger|greater|higher]", "[smaller|less|lower]"
OF_TWO = "[:|,| of| from| between|] {a} [and|or] {b}[?|.|]"
PHRASINGS = {
    "compare.larger": Phrasings(
        [
            f"Which one is {LARGER}? {{a}} or {{b}}",
            f"Which is {LARGER}, {{a}} or {{b}}?",
            f"Which number is {LARGER}: {{a}} or {{b}}?",
            f"What is {LARGER}, {{a}} or {{b}}?",
            f"Compare {{a}} and {{b}}. Which is {LARGER}?",
            f"Which of {{a}} and {{b}} is {LARGER}?",
            f"{{a}} or {{b}}: which one is {LARGER}?",
            "Which is more, {a} or {b}?",
            f"Tell me which is {LARGER}: {{a}} or {{b}}.",
            "Which of these is the larger number: {a} or {b}?",
            f"Between {{a}} and {{b}}, which is {LARGER}?",
            "What is the bigger one of {a} and {b}?",
            f"[Which|Which one|What] [is|would be] {LARGER}[:|,|?] {{a}} or {{b}}[?|]",
            f"[Which|Which one|What] is the {LARGER} [one|number|value]{OF_TWO}",
            f"[Find|Name|Give me|Say|Show me|Choose|Pick] the {LARGER} [one|number|value|of the two]{OF_TWO}",
            (
                f"[Tell me|Say|Find out|Can you tell me|Do you know|I want to know] which [one|number|of the two|] is "
                f"{LARGER}{OF_TWO}"
            ),
            f"{{a}} [or|and|,|vs] {{b}}[:|,|.|?] [Which|which|What|what] [one|number|] is [the |]{LARGER}[?|]",
            (
                f"[Look at|Compare|Take] {{a}} [and|with] {{b}}[.|:] [Which|What] [one|number|of them|of the two|] is "
                f"{LARGER}?"
            ),
            (
                f"[Here are|I have|There are] two numbers[:|,] {{a}} and {{b}}. Which [one|of them|of the two|] is "
                f"{LARGER}?"
            ),
            f"Which of [the|these|my] [two |][numbers|values] is {LARGER}: {{a}} or {{b}}?",
        ],
        [
            f"Which of the two numbers is {LARGER}, {{a}} or {{b}}?",
            f"{{a}} and {{b}}: which is {LARGER}?",
            "Tell me the larger one of {a} and {b}.",
            f"Is {{a}} or {{b}} {LARGER}?",
        ],
    ),
    "compare.smaller": Phrasings(
        [
            f"Which one is {SMALLER}? {{a}} or {{b}}",
            f"Which is {SMALLER}, {{a}} or {{b}}?",
            f"Which number is {SMALLER}: {{a}} or {{b}}?",
            f"What is {SMALLER}, {{a}} or {{b}}?",
            f"Compare {{a}} and {{b}}. Which is {SMALLER}?",
            f"Which of {{a}} and {{b}} is {SMALLER}?",
            f"{{a}} or {{b}}: which one is {SMALLER}?",
            "Which of these is the smaller number: {a} or {b}?",
            f"Tell me which is {SMALLER}: {{a}} or {{b}}.",
            f"Between {{a}} and {{b}}, which is {SMALLER}?",
            "What is the smaller one of {a} and {b}?",
            f"[Which|Which one|What] [is|would be] {SMALLER}[:|,|?] {{a}} or {{b}}[?|]",
            f"[Which|Which one|What] is the {SMALLER} [one|number|value]{OF_TWO}",
            f"[Find|Name|Give me|Say|Show me|Choose|Pick] the {SMALLER} [one|number|value|of the two]{OF_TWO}",
            (
                f"[Tell me|Say|Find out|Can you tell me|Do you know|I want to know] which [one|number|of the two|] is "
                f"{SMALLER}{OF_TWO}"
            ),
            f"{{a}} [or|and|,|vs] {{b}}[:|,|.|?] [Which|which|What|what] [one|number|] is [the |]{SMALLER}[?|]",
            (
                f"[Look at|Compare|Take] {{a}} [and|with] {{b}}[.|:] [Which|What] [one|number|of them|of the two|] is "
                f"{SMALLER}?"
            ),
            (
                f"[Here are|I have|There are] two numbers[:|,] {{a}} and {{b}}. Which [one|of them|of the two|] is "
                f"{SMALLER}?"
            ),
            f"Which of [the|these|my] [two |][numbers|values] is {SMALLER}: {{a}} or {{b}}?",
        ],
        [
            f"Which of the two numbers is {SMALLER}, {{a}} or {{b}}?",
            f"{{a}} and {{b}}: which is {SMALLER}?",
            "Tell me the smaller one of {a} and {b}.",
            f"Is {{a}} or {{b}} {SMALLER}?",
        ],
    ),
    "compare.is_larger": Phrasings(
        [
            f"Is {{a}} {LARGER} than {{b}}?",
            "Is {a} more than {b}?",
            "Is {a} > {b}?",
            f"Is the number {{a}} {LARGER} than {{b}}?",
            f"{{a}} is {LARGER} than {{b}}. True?",
            f"Is it true that {{a}} is {LARGER} than {{b}}?",
            f"[Is|Would] {{a}} [really |]{LARGER} than {{b}}[?|, yes or no?]",
            (
                f"[Can you tell me if|Tell me if|Say if|Do you think that|Do you think|Would you say|Is it right that|"
                f"Check if] {{a}} is {LARGER} than {{b}}[?|.]"
            ),
            (
                f"[I think|I say|They say|Someone says] that {{a}} is {LARGER} than {{b}}. [Is that|Is this|Am I|Is "
                f"it] [right|true|correct]?"
            ),
            f"{{a}} is {LARGER} than {{b}}[. Right?|, right?|. Is that true?|, true or false?|. Yes or no?]",
            f"[Yes or no|Question|Answer|Say]: is {{a}} {LARGER} than {{b}}?",
        ],
        [f"Would you say that {{a}} is {LARGER} than {{b}}?", f"Tell me: is {{a}} {LARGER} than {{b}}?"],
    ),
    "compare.is_smaller": Phrasings(
        [
            f"Is {{a}} {SMALLER} than {{b}}?",
            "Is {a} < {b}?",
            f"Is the number {{a}} {SMALLER} than {{b}}?",
            f"{{a}} is {SMALLER} than {{b}}. True?",
            f"Is it true that {{a}} is {SMALLER} than {{b}}?",
            f"[Is|Would] {{a}} [really |]{SMALLER} than {{b}}[?|, yes or no?]",
            (
                f"[Can you tell me if|Tell me if|Say if|Do you think that|Do you think|Would you say|Is it right that|"
                f"Check if] {{a}} is {SMALLER} than {{b}}[?|.]"
            ),
            (
                f"[I think|I say|They say|Someone says] that {{a}} is {SMALLER} than {{b}}. [Is that|Is this|Am I|Is "
                f"it] [right|true|correct]?"
            ),
            f"{{a}} is {SMALLER} than {{b}}[. Right?|, right?|. Is that true?|, true or false?|. Yes or no?]",
            f"[Yes or no|Question|Answer|Say]: is {{a}} {SMALLER} than {{b}}?",
        ],
        [f"Would you say that {{a}} is {SMALLER} than {{b}}?", f"Tell me: is {{a}} {SMALLER} than {{b}}?"],
    ),
    "extreme.largest": Phrasings(
        [
            "What is the [largest|biggest|greatest|highest] of {list}?",
            "Which is the [largest|biggest|greatest|highest] number: {list}?",
            "Find the [largest|biggest|greatest|highest] number in {list}.",
            "What is the maximum of {list}?",
            "Find the [largest|biggest|greatest|highest] of these numbers: {list}.",
            "Max of {list}?",
            "Which of {list} is the [largest|biggest|greatest|highest]?",
            "{list}: which is the [largest|biggest]?",
            (
                "[What|Which] is the [largest|biggest|highest|greatest] [one|number|value|] [of|in|among] [these|the "
                "numbers|the list|this list|these numbers|]: {list}?"
            ),
            (
                "[Find|Name|Give me|Show me|Say|Choose|Pick] the [largest|biggest|highest|greatest] [one|number|value|"
                "] [of|in|among|from] [these:|the numbers|the list|these numbers:|] {list}[.|]"
            ),
            (
                "[Tell me|Say|Can you tell me|Find out] which [one |number |]is the [largest|biggest|highest|"
                "greatest][:|,] {list}[.|?|]"
            ),
            "{list}[:|.|,] [which|what|Which|What] [one |number |value |]is the [largest|biggest|highest|greatest]?",
            (
                "[Look at|Take|Here are|I have] [these numbers|some numbers|the numbers][:|] {list}. [Which|What] [one "
                "|number |]is the [largest|biggest|highest|greatest]?"
            ),
            "[What is|Find|Name|Say|Tell me] the [maximum|max] [of|in] [the list|the numbers|these|] {list}[.|]",
            "[Among|In|From] {list}, [which|what] [one |number |]is the [largest|biggest|highest|greatest]?",
            "Which [number|one|value] [of|in|among] {list} is the [largest|biggest|highest|greatest]?",
        ],
        [
            "Of {list}, which is the [largest|biggest]?",
            "Tell me the [largest|biggest|highest] of these: {list}.",
            "Give me the maximum of these numbers: {list}.",
        ],
    ),
    "extreme.smallest": Phrasings(
        [
            "What is the [smallest|lowest|least] of {list}?",
            "Which is the [smallest|lowest] number: {list}?",
            "Find the [smallest|lowest|least] number in {list}.",
            "What is the minimum of {list}?",
            "Find the [smallest|lowest] of these numbers: {list}.",
            "Min of {list}?",
            "Which of {list} is the [smallest|lowest]?",
            "{list}: which is the [smallest|lowest]?",
            (
                "[What|Which] is the [smallest|lowest|least] [one|number|value|] [of|in|among] [these|the numbers|the "
                "list|this list|these numbers|]: {list}?"
            ),
            (
                "[Find|Name|Give me|Show me|Say|Choose|Pick] the [smallest|lowest|least] [one|number|value|] [of|in|"
                "among|from] [these:|the numbers|the list|these numbers:|] {list}[.|]"
            ),
            (
                "[Tell me|Say|Can you tell me|Find out] which [one |number |]is the [smallest|lowest|least][:|,] "
                "{list}[.|?|]"
            ),
            "{list}[:|.|,] [which|what|Which|What] [one |number |value |]is the [smallest|lowest|least]?",
            (
                "[Look at|Take|Here are|I have] [these numbers|some numbers|the numbers][:|] {list}. [Which|What] [one "
                "|number |]is the [smallest|lowest|least]?"
            ),
            "[What is|Find|Name|Say|Tell me] the [minimum|min] [of|in] [the list|the numbers|these|] {list}[.|]",
            "[Among|In|From] {list}, [which|what] [one |number |]is the [smallest|lowest|least]?",
            "Which [number|one|value] [of|in|among] {list} is the [smallest|lowest|least]?",
        ],
        [
            "Of {list}, which is the [smallest|lowest]?",
            "Tell me the [smallest|lowest] of these: {list}.",
            "Give me the minimum of these numbers: {list}.",
        ],
    ),
    "sort.up": Phrasings(
        [
            "Sort {list} in ascending order.",
            "Sort {list}.",
            "Sort these numbers: {list}",
            "Sort from smallest to largest: {list}",
            "Put {list} in [ascending|increasing] order.",
            "Order {list} from smallest to largest.",
            "Sort the numbers {list} from low to high.",
            "Sort these numbers in ascending order: {list}",
            "Sort {list}, smallest first.",
            "Put these numbers in order: {list}",
            "Can you sort {list}?",
            (
                "[Sort|Order|Arrange|Put|List|Write|Rank] [the numbers |these numbers: |these: |]{list}[,|] in "
                "[ascending|increasing|rising] order[.|]"
            ),
            (
                "[Sort|Order|Rank|Arrange|List|Write] [the numbers|these numbers|these|] [in [ascending|increasing|"
                "rising] order|[from smallest to largest|from low to high|smallest first|from small to large|from the "
                "smallest to the largest|lowest first|upwards]]: {list}[.|]"
            ),
            (
                "[Sort|Order|Rank|List|Write] [the numbers |these numbers: |]{list}[,|] [from smallest to largest|from "
                "low to high|smallest first|from small to large|from the smallest to the largest|lowest first|"
                "upwards][.|]"
            ),
            (
                "[Can|Could|Would] you [sort|order|arrange|rank] {list} [[from smallest to largest|from low to high|"
                "smallest first|from small to large|from the smallest to the largest|lowest first|upwards]|in "
                "[ascending|increasing|rising] order][?|]"
            ),
            "[Bring|Put] [the numbers |these numbers: |]{list} into [ascending|increasing|rising] order.",
            (
                "[Here are|I have] [some |]numbers: {list}. [Sort|Order|Rank] them [[from smallest to largest|from low "
                "to high|smallest first|from small to large|from the smallest to the largest|lowest first|upwards]|in "
                "[ascending|increasing|rising] order]."
            ),
            (
                "{list}[:|.] [sort|order|Sort|Order] [them|these] [[from smallest to largest|from low to high|smallest "
                "first|from small to large|from the smallest to the largest|lowest first|upwards]|in [ascending|"
                "increasing|rising] order][.|]"
            ),
            (
                "[What is|Give me|Show me] {list} [sorted|ordered|in order] [from smallest to largest|from low to high|"
                "smallest first|from small to large|from the smallest to the largest|lowest first|upwards][?|.]"
            ),
            "[Can|Could] you [order|put in order|arrange] {list}?",
            "[Sort|Order|Arrange|Rank] [the numbers|the list|this list|these|them][:|] {list}[.|]",
            "[Put|Bring] [the numbers|the list|these] [in|into] order: {list}",
            "[Put|Bring] [the numbers|the list|] {list} [into order|in the right order|in the correct order][.|]",
            "{list}[:|.] [sort|order|Sort|Order] [them|these|the numbers][.|]",
        ],
        [
            "Arrange {list} from smallest to largest.",
            "Please put {list} in order.",
            "Sort in ascending order: {list}",
            "Order these numbers: {list}",
        ],
    ),
    "sort.down": Phrasings(
        [
            "Sort {list} in descending order.",
            "Sort from largest to smallest: {list}",
            "Put {list} in [descending|decreasing] order.",
            "Order {list} from largest to smallest.",
            "Sort the numbers {list} from high to low.",
            "Sort these numbers in descending order: {list}",
            "Sort {list}, largest first.",
            "Put these numbers in descending order: {list}",
            "Can you sort {list} from high to low?",
            (
                "[Sort|Order|Arrange|Put|List|Write|Rank] [the numbers |these numbers: |these: |]{list}[,|] in "
                "[descending|decreasing|falling] order[.|]"
            ),
            (
                "[Sort|Order|Rank|Arrange|List|Write] [the numbers|these numbers|these|] [in [descending|decreasing|"
                "falling] order|[from largest to smallest|from high to low|largest first|from large to small|from the "
                "largest to the smallest|highest first|downwards]]: {list}[.|]"
            ),
            (
                "[Sort|Order|Rank|List|Write] [the numbers |these numbers: |]{list}[,|] [from largest to smallest|from "
                "high to low|largest first|from large to small|from the largest to the smallest|highest first|"
                "downwards][.|]"
            ),
            (
                "[Can|Could|Would] you [sort|order|arrange|rank] {list} [[from largest to smallest|from high to low|"
                "largest first|from large to small|from the largest to the smallest|highest first|downwards]|in "
                "[descending|decreasing|falling] order][?|]"
            ),
            "[Bring|Put] [the numbers |these numbers: |]{list} into [descending|decreasing|falling] order.",
            (
                "[Here are|I have] [some |]numbers: {list}. [Sort|Order|Rank] them [[from largest to smallest|from "
                "high to low|largest first|from large to small|from the largest to the smallest|highest first|"
                "downwards]|in [descending|decreasing|falling] order]."
            ),
            (
                "{list}[:|.] [sort|order|Sort|Order] [them|these] [[from largest to smallest|from high to low|largest "
                "first|from large to small|from the largest to the smallest|highest first|downwards]|in [descending|"
                "decreasing|falling] order][.|]"
            ),
            (
                "[What is|Give me|Show me] {list} [sorted|ordered|in order] [from largest to smallest|from high to low|"
                "largest first|from large to small|from the largest to the smallest|highest first|downwards][?|.]"
            ),
        ],
        [
            "Arrange {list} from largest to smallest.",
            "Sort in descending order: {list}",
            "Order these numbers from high to low: {list}",
        ],
    ),
    "sequence": Phrasings(
        [
            "What comes next: {list}?",
            "What is the next number: {list}, ...?",
            "Continue the sequence: {list}",
            "Which number comes next? {list}",
            "What number follows {list}?",
            "Continue: {list}, ...",
            "Find the next number: {list}",
            "What is the next number in the sequence {list}?",
            "{list}: what comes next?",
            (
                "[What|Which] [is|would be|comes|will be] [next|the next number|the next one|the following number][:| "
                "in| in the list| in the sequence| after|] {list}[?|, ...?]"
            ),
            (
                "[Continue|Go on|Go on with|Extend] [the sequence|the numbers|this sequence|the series|this list|]: "
                "{list}[, ...|]"
            ),
            (
                "[Find|Give me|Name|Say|Show me|Guess] the [next|following] [number|one|value][:| in| of| after|] "
                "{list}[.|]"
            ),
            "[Which|What] number [comes next|is next|follows|should come next|would follow][:| in| after|] {list}?",
            "{list}[:|,|.|, ...] [what|which|What|Which] [number |one |][comes next|is next|follows|would be next]?",
            "[Tell me|Say|Can you tell me|Do you know] [what|which number] comes next[:| in| after] {list}[.|?]",
            "[Here is|I have|Look at] a sequence: {list}. [What|Which number] [comes next|is next|follows]?",
            "[Count on|Count further]: {list}",
            "[What|What number|Which one|Which value] [comes|is|would come] after [the numbers |the sequence |the list |]{list}?",
            "Which number [comes|is|would come] after [the numbers|the sequence|the list] {list}?",
        ],
        [
            "Which number comes after {list}?",
            "Tell me the next number: {list}",
            "What is the number that comes next in {list}?",
        ],
    ),
}
