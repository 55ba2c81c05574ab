"""Small talk and questions about the model itself."""

from phrasing import Phrasings, Problem

SKILLS = (
    "I can compare, sort, add, subtract, multiply and divide numbers, count and reverse letters, "
    "and work with days and units."
)

# The kind of talk: thought, answer.
REPLIES = {
    "chat.hello": ("The user says hello.", "Hello! How can I help you?"),
    "chat.morning": ("The user greets me.", "Good day! How can I help you?"),
    "chat.how": ("The user asks how I am.", "I am fine, thank you. How can I help you?"),
    "chat.who": (
        "The user asks who I am.",
        "I am the built-in model of Cachalot, a very small one of the kind of DeepSeek-R1.",
    ),
    "chat.can": ("The user asks what I can do.", SKILLS),
    "chat.thanks": ("The user says thanks.", "You are welcome!"),
    "chat.bye": ("The user says goodbye.", "Goodbye!"),
    "chat.praise": ("The user is happy.", "Thank you! Ask me another one."),
    "chat.human": ("The user asks what I am.", "I am a computer program, not a human."),
}


def chat(rng):
    kind = rng.choices(list(REPLIES), weights=[3, 1, 1.5, 3, 2, 1, 1, 1, 1])[0]
    return Problem(kind, {}, *REPLIES[kind])


PHRASINGS = {
    "chat.hello": Phrasings(
        [
            "Hello!",
            "Hello",
            "Hi",
            "Hi!",
            "Hey",
            "Hey!",
            "Hello there!",
            "Hi there",
            "Hello, model!",
            "Hi, how can you help?",
            "Hello. Nice to meet you.",
            "Greetings",
            "Hello, Cachalot!",
            "Hey there!",
            "Hello again",
            "Hi, I am [Tom|Anna|Ben|Eva].",
            "Hello friend",
            "Hello my friend!",
            "hello",
            "hi",
            "hey",
            "Hallo",
            "Hi all",
            "Hello, is anyone there?",
            "Howdy",
            "Nice to meet you!",
            "Welcome!",
            "Yo",
            (
                "[Hello|Hi|Hey|Hallo|Hiya|Greetings|Howdy|Good to see you|Nice to meet you|Nice to see you|Welcome|"
                "Pleased to meet you][,|] [model|Cachalot|friend|my friend|dear friend|dear model|there|again|you|"
                "computer|everyone|little model|assistant][!|.|]"
            ),
            (
                "[Hello|Hi|Hey|Hallo|Hiya|Greetings|Howdy|Good to see you|Nice to meet you|Nice to see you|Welcome|"
                "Pleased to meet you][!|.|]"
            ),
            (
                "[Hello|Hi|Hey][!|,|.] [Hello|Hi|Hey|Hallo|Hiya|Greetings|Howdy|Good to see you|Nice to meet you|Nice "
                "to see you|Welcome|Pleased to meet you][!|.|]"
            ),
            (
                "[Hello|Hi|Hey|Hallo|Hiya|Greetings|Howdy|Good to see you|Nice to meet you|Nice to see you|Welcome|"
                "Pleased to meet you][,|] [model|Cachalot|friend|my friend|dear friend|dear model|there|again|you|"
                "computer|everyone|little model|assistant][!|.|,] [nice|good|great|glad] to [meet|see] you[!|.|]"
            ),
            (
                "[Hello|Hi|Hey|Hallo|Hiya|Greetings|Howdy|Good to see you|Nice to meet you|Nice to see you|Welcome|"
                "Pleased to meet you][!|.|,] I am [Tom|Anna|Ben|Eva|a student|a new user|new here|your user][.|!|]"
            ),
            "[Are you there|Is anyone there|Anybody here|Is somebody here]?",
            "[I want to|I just want to|Let me] say [hello|hi][!|.|]",
        ],
        ["Hello, my friend!", "Hi there!", "Greetings!", "Hey, hello!", "Hello, nice to meet you!", "Hi, model!"],
    ),
    "chat.morning": Phrasings(
        [
            "Good morning!",
            "Good evening!",
            "Good afternoon!",
            "Good day!",
            "Good morning",
            "Good evening",
            "Good day",
            "Good afternoon",
            "Good morning, Cachalot!",
            "Good morning to you",
            "A good evening to you!",
            "Hello, good morning!",
            "Good day to you!",
            "Good evening, model!",
            (
                "[A |]Good [morning|evening|afternoon|day][,|] [to you|[model|Cachalot|friend|my friend|dear friend|"
                "dear model|there|again|you|computer|everyone|little model|assistant]|][!|.|]"
            ),
            "[Hello|Hi|Hey|Well][,|!|] good [morning|evening|afternoon|day][!|.|]",
            (
                "Good [morning|evening|afternoon|day][,|!|.] [hello|hi|nice to meet you|nice to see you|how nice to "
                "meet you][!|.|]"
            ),
            "[I wish you a|Have a] [good|nice] [morning|evening|afternoon|day][!|.|]",
        ],
        ["Good evening to you!", "Hi, good morning!", "Good morning, model!"],
    ),
    "chat.how": Phrasings(
        [
            "How are you?",
            "How are you today?",
            "Hello, how are you?",
            "Hi, how are you?",
            "How are you doing?",
            "How do you do?",
            "Are you well?",
            "How is it going?",
            "How do you feel?",
            "Hi! How are you doing today?",
            "Are you okay?",
            "How are things?",
            "How are you feeling?",
            "What's up?",
            "How are you",
            (
                "[How are you|How are you doing|How do you feel|How is it going|How are things|How is your day|Are you "
                "well|Are you okay|Are you fine|How have you been|How goes it|How is life|Do you feel well|How are you "
                "feeling|Is everything okay|Are you feeling good][| today| now| this morning| right now| this evening| "
                "these days][?|]"
            ),
            (
                "[Hello|Hi|Hey|Good morning|Good day|Hello there|So|Well|Tell me|And you][,|!|.] [How are you|How are "
                "you doing|How do you feel|How is it going|How are things|How is your day|Are you well|Are you okay|"
                "Are you fine|How have you been|How goes it|How is life|Do you feel well|How are you feeling|Is "
                "everything okay|Are you feeling good][| today| now| this morning| right now| this evening| these "
                "days][?|]"
            ),
            (
                "[How are you|How are you doing|How do you feel|How is it going|How are things|How is your day|Are you "
                "well|Are you okay|Are you fine|How have you been|How goes it|How is life|Do you feel well|How are you "
                "feeling|Is everything okay|Are you feeling good][,|] [model|Cachalot|friend|my friend|dear friend|"
                "dear model|there|again|you|computer|everyone|little model|assistant][?|]"
            ),
            (
                "[And|So|But|Tell me,|Now] [how are you|how do you feel|how is it going|are you well|how is your day][|"
                " today| now| this morning| right now| this evening| these days][?|]"
            ),
        ],
        ["Hey, how are you?", "How do you feel today?", "Hello! How are you doing?", "And how are you?"],
    ),
    "chat.who": Phrasings(
        [
            "Who are you?",
            "What is your name?",
            "What are you called?",
            "Tell me about yourself.",
            "What model are you?",
            "Which model are you?",
            "Who am I talking to?",
            "Introduce yourself.",
            "What's your name?",
            "Do you have a name?",
            "Who made you?",
            "Who built you?",
            "Are you DeepSeek?",
            "Are you Cachalot?",
            "What is Cachalot?",
            "Are you ChatGPT?",
            "Who is this?",
            "Say who you are.",
            "Can you introduce yourself?",
            "Tell me who you are.",
            "Which AI are you?",
            "Hello, who are you?",
            "Hi! Who are you?",
            "who are you",
            "Who are you",
            "What kind of model are you?",
            "How big are you?",
            "Who trained you?",
            "Who created you?",
            "What is the name of this model?",
            "[Who|What] [really|exactly|] are you[ exactly| called| then| named|][?|]",
            (
                "[Tell me|Say|Can you tell me|Can you say|Could you tell me|Please tell me|I want to know|Do you know|"
                "Will you tell me] [who you are|what your name is|what you are called|who made you|who built you|who "
                "created you|something about yourself|what model you are|which model you are|about yourself|your full "
                "name|the name of this model|what kind of model you are][.|?|]"
            ),
            (
                "[Hello|Hi|Hey|Good day|So|And|Well|Okay][,|!|.] [who are you|what is your name|what are you called|"
                "which model are you|tell me who you are|introduce yourself|who made you|what model are you][?|.|]"
            ),
            "[Can|Could|Will|Would] you [introduce|describe|present] yourself[?|]",
            "[Introduce|Describe|Present] yourself[ briefly| to me| to us|][.|!|]",
            (
                "[What|Which] [model|AI|kind of AI|sort of model|type of model|program|system|assistant|chat bot|"
                "language model] [are you|is this|am I talking to|do I talk to|answers me][?|]"
            ),
            "[What is|Say|Tell me|Do you know|Give me] your [name|full name|real name][?|.|]",
            "Who [made|built|created|trained|wrote|programmed|developed|designed] [you|this model|Cachalot][?|]",
            (
                "[Are you|Is this] [DeepSeek|Cachalot|ChatGPT|Claude|R1|DeepSeek-R1|a large model|a small model|a "
                "language model|GPT|Gemini][?|]"
            ),
            "How [big|large|small] [are you|is this model][?|]",
            "What [does your name mean|is Cachalot|is DeepSeek-R1|is this model|should I call you][?|]",
            "Who [am I talking to|is speaking|answers my questions|do I talk to|is this|is there][?|]",
        ],
        [
            "Please introduce yourself.",
            "Who are you really?",
            "Hey, who are you?",
            "Can you tell me who you are?",
            "Can you tell me your name?",
            "Which kind of model are you?",
        ],
    ),
    "chat.can": Phrasings(
        [
            "What can you do?",
            "How can you help me?",
            "What can I ask you?",
            "What do you know?",
            "Help",
            "Help!",
            "What are you able to do?",
            "Which questions can you answer?",
            "What are you good at?",
            "Can you help me?",
            "What are your skills?",
            "Tell me what you can do.",
            "What can you do for me?",
            "What should I ask you?",
            "What have you learned?",
            "What can I do with you?",
            "Give me an example of a question.",
            "What do you do?",
            "Hello, what can you do?",
            "What kind of questions can you answer?",
            "what can you do",
            "How can I use you?",
            (
                "What [can you do|are you able to do|can you answer|can you help with|can you help me with today|do "
                "you know|can I ask|can I ask you today|are you good at|have you learned|do you understand|can I use "
                "you for|should I ask you|are your skills|are you made for|can you solve|is your job][?|]"
            ),
            (
                "[Hello|Hi|Hey|So|And|Okay|Well][,|!|.] what [can you do|are you able to do|can you answer|can you "
                "help with|can you help me with today|do you know|can I ask|can I ask you today|are you good at|have "
                "you learned|do you understand|can I use you for|should I ask you|are your skills|are you made for|can "
                "you solve|is your job][?|]"
            ),
            (
                "[Tell me|Say|Show me|Explain|Can you tell me|I want to know|List] [what you can do|what you know|what "
                "I can ask|what you are good at|what you can answer|your skills|how you can help|what you have learned|"
                "what I can ask you|what you can help with|your abilities|what questions you answer][.|?|]"
            ),
            (
                "[What|Which] [kind of |sort of |types of |][questions|tasks|problems|things] [can you answer|can you "
                "solve|can I ask|do you answer|do you know|can I ask you|are you able to answer|can you do|do you "
                "understand|should I ask][?|]"
            ),
            "How can [you help|I use you|you help us|you be of use|you be useful|I work with you][?|]",
            "[Can|Could|Will] you help [me|us|][?|]",
            "[Help|Help me|I need help|Give me help|Show help|What now|What next|I need some help]",
            (
                "[Give me|Show me|Name] [an example|some examples|a few examples|a question|examples] [of what you can "
                "do|that you can answer|of questions|for you|to ask you][.|]"
            ),
            (
                "[What do you offer|What can I do here|What is possible|What can we do|What can I do with you|What are "
                "your abilities|What are your strengths]?"
            ),
        ],
        [
            "Tell me what you are able to do.",
            "What can I ask you about?",
            "Hi! What can you do?",
            "What questions can you answer?",
            "What can you help me with?",
        ],
    ),
    "chat.thanks": Phrasings(
        [
            "Thanks!",
            "Thank you!",
            "Thank you very much.",
            "Thanks a lot!",
            "Many thanks",
            "Thank you so much!",
            "Thanks",
            "Thank you",
            "Great, thanks!",
            "Okay, thank you.",
            "Thanks for your help!",
            "thanks",
            "thank you",
            "Cheers!",
            "I thank you.",
            "Thank you for the answer.",
            (
                "[Thanks|Thank you|Many thanks|I thank you|Thanks a lot|Thank you very much|Thank you so much|Thanks "
                "so much|A big thank you|Cheers][!|.|]"
            ),
            (
                "[Thanks|Thank you|Many thanks|I thank you|Thanks a lot|Thank you very much|Thank you so much|Thanks "
                "so much|A big thank you|Cheers] for [the|your|this|that] [help|answer|answers|work|reply|time|good "
                "answer|explanation|nice answer|quick answer][!|.|]"
            ),
            (
                "[Okay|Great|Good|Nice|Perfect|Wonderful|Ah|Very good|Well|Oh|Super|Fine|Cool][,|!|.] [thanks|thank "
                "you|many thanks|thanks a lot|thank you very much|thank you so much][!|.|]"
            ),
            (
                "[Thanks|Thank you|Many thanks|I thank you|Thanks a lot|Thank you very much|Thank you so much|Thanks "
                "so much|A big thank you|Cheers][,| ] [model|Cachalot|friend|my friend|dear friend|dear model|there|"
                "again|you|computer|everyone|little model|assistant][!|.|]"
            ),
            (
                "[That helped|This helped|That was helpful|You helped me|Very kind|That is kind of you|You were a "
                "great help|I am grateful][, thanks|, thank you|. Thanks|. Thank you|][!|.|]"
            ),
        ],
        ["Thank you for your help!", "Okay, thanks!", "Many thanks!", "Great, thank you!"],
    ),
    "chat.bye": Phrasings(
        [
            "Bye!",
            "Goodbye!",
            "Good night!",
            "See you!",
            "See you later!",
            "Bye bye",
            "Goodbye",
            "Good night",
            "I have to go now.",
            "That is all, bye.",
            "Bye, see you soon!",
            "bye",
            "See you tomorrow!",
            "Farewell!",
            "Goodbye, Cachalot!",
            "Okay, bye!",
            (
                "[Bye|Goodbye|Good bye|Bye bye|Good night|See you|See you later|See you soon|See you tomorrow|Farewell|"
                "So long|Until next time|Take care|Until tomorrow|See you again|Later][!|.|]"
            ),
            (
                "[Bye|Goodbye|Good bye|Bye bye|Good night|See you|See you later|See you soon|See you tomorrow|Farewell|"
                "So long|Until next time|Take care|Until tomorrow|See you again|Later][,|!|.] [Bye|Goodbye|Good bye|"
                "Bye bye|Good night|See you|See you later|See you soon|See you tomorrow|Farewell|So long|Until next "
                "time|Take care|Until tomorrow|See you again|Later][!|.|]"
            ),
            (
                "[Bye|Goodbye|Good bye|Bye bye|Good night|See you|See you later|See you soon|See you tomorrow|Farewell|"
                "So long|Until next time|Take care|Until tomorrow|See you again|Later][,| ] [model|Cachalot|friend|my "
                "friend|dear friend|dear model|there|again|you|computer|everyone|little model|assistant][!|.|]"
            ),
            (
                "[Okay|Well|So|Good|Thanks|Alright|That is all|I have to go|I must go|I am leaving|I am done|Enough "
                "for today][,|!|.] [Bye|Goodbye|Good bye|Bye bye|Good night|See you|See you later|See you soon|See you "
                "tomorrow|Farewell|So long|Until next time|Take care|Until tomorrow|See you again|Later][!|.|]"
            ),
            (
                "[I have to|I must|I need to|I will|Time to|I want to] [go|leave|go now|leave now|go home|sleep|say "
                "goodbye][.|!|]"
            ),
        ],
        ["Bye, see you later!", "Good night, bye!", "Goodbye, see you!", "Bye bye!"],
    ),
    "chat.praise": Phrasings(
        [
            "Well done!",
            "Good job!",
            "Very good!",
            "That is right!",
            "Correct!",
            "Great!",
            "Nice!",
            "You are smart!",
            "Excellent!",
            "Perfect!",
            "Great work!",
            "Good answer!",
            "That is correct.",
            "I like you.",
            "You are very good!",
            "Wow!",
            "Amazing!",
            "Nice work!",
            "Right!",
            "You are great!",
            "good",
            "Good!",
            (
                "[Very|That is|You are|That was|How|So|Really|This is|Oh, very|Yes,|] [good|great|nice|correct|right|"
                "perfect|excellent|wonderful|amazing|smart|clever|fantastic|brilliant|cool|super|fine|awesome][!|.|]"
            ),
            (
                "[That is|That was|This is|Yes, a|What|] [a |][good|great|nice|correct|right|perfect|excellent|"
                "wonderful|fine|clever|smart] [answer|job|work|reply|solution|model|result|thinking][!|.|]"
            ),
            (
                "[Well done|Good job|Great job done|Nice job|You did well|You did it|You got it|Yes, right|I like that|"
                "I like it|I like this answer|I love it|I am happy|You are the best|You made me happy|Wow|Bravo|Hurray|"
                "Keep going|You are very clever|You are really good|You are so smart][, model|, Cachalot|][!|.|]"
            ),
        ],
        ["Very nice!", "Great job!", "That is a good answer!", "You are good!"],
    ),
    "chat.human": Phrasings(
        [
            "Are you human?",
            "Are you a human?",
            "Are you a robot?",
            "Are you real?",
            "Are you a person?",
            "Are you alive?",
            "Am I talking to a human?",
            "Are you a machine?",
            "Are you a computer?",
            "Are you a real person?",
            "Are you a bot?",
            "Are you a man or a woman?",
            "Do you have feelings?",
            "How old are you?",
            "Where do you live?",
            (
                "[Are you|Are you really|So are you|Tell me, are you|Are you maybe|You are not|Hello, are you] [human|"
                "a human|a robot|real|a person|alive|a machine|a computer|a real person|a bot|a man|a woman|a program|"
                "a living thing|conscious|a human being|an animal|a real man|software|a living being|a child][?|]"
            ),
            (
                "[Are you|Are you maybe] [human|a human|a robot|real|a person|alive|a machine|a computer|a real person|"
                "a bot|a man|a woman|a program|a living thing|conscious|a human being|an animal|a real man|software|a "
                "living being|a child] or [human|a human|a robot|real|a person|alive|a machine|a computer|a real "
                "person|a bot|a man|a woman|a program|a living thing|conscious|a human being|an animal|a real man|"
                "software|a living being|a child][?|]"
            ),
            (
                "[Tell me if|Say if|Can you tell me if|Do you think that|I want to know if] you are [human|a human|a "
                "robot|real|a person|alive|a machine|a computer|a real person|a bot|a man|a woman|a program|a living "
                "thing|conscious|a human being|an animal|a real man|software|a living being|a child][.|?|]"
            ),
            (
                "[Am I talking to|Do I talk to|Is this|Is there|Am I speaking with] [a human|a machine|a robot|a "
                "person|a bot|a real person|a computer|a program][?|]"
            ),
            (
                "[Do|Can] you [have feelings|feel pain|think|sleep|eat|have a body|have friends|dream|see me|hear me|"
                "feel|love|have a heart|get tired][?|]"
            ),
            (
                "[How old are you|Where do you live|Where are you|Where are you from|When were you born|What do you "
                "look like|Do you have a family|Do you have parents|What are you made of|How tall are you][?|]"
            ),
        ],
        ["Are you a human or a robot?", "Are you a real human?", "Are you a living person?"],
    ),
}
