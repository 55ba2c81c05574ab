"""A server of the API whose answers a script says, for what no model says when it is asked to: tools, formulas, a
thousand words slowly, and whatever might do harm. It tells of ranks as a server of ours does (/state)."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HURT = "<img src=x onerror=window.hurt=1>"
MODEL = f"scripted {HURT}"

MARKDOWN = r"""# A heading

Some **bold** text, `code`, and a list:

- one
- two

| name | value |
|---|---|
| a | 1 |

```python
def answer(question):
    return 42  # always
```

Inline \(a^2 + b^2 = c^2\), prices of $5 and $7, and

$$
x = \frac{-b \pm \sqrt{b^2 - 4ac}}{2a}
$$
"""

HOSTILE = r"""<script>window.hurt = 1</script><img src=x onerror="window.hurt=1"><svg onload="window.hurt=1"></svg>
<iframe srcdoc="<script>parent.hurt=1</script>"></iframe><style>body { display: none }</style>
<form action="http://127.0.0.1:9/"><button>Send</button></form><details open ontoggle="window.hurt=1">

[one](javascript:window.hurt=1) [two](data:text/html,<script>window.hurt=1</script>) ![three](http://127.0.0.1:9/three.png)
[four](vbscript:x) [five](https://example.org/) <a href="javascript:window.hurt=1">six</a> <http://127.0.0.1:9/seven>

\(\href{javascript:window.hurt=1}{x}\) $\class{</math><img src=x onerror=window.hurt=1>}{y}$
\(\text{</annotation><script>window.hurt=1</script>}\)

```"><img src=x onerror=window.hurt=1>
<script>window.hurt = 1</script>
```

That was all.
"""

# What stands in the last message: the answer as (thought, text, calls, seconds between two words).
SCRIPT = [
    ("slowly", ("", "word " * 2000, [], 0.02)),
    ("hostile", (HURT, HOSTILE, [("evil" + HURT, '{"a": "</code>' + HURT + '"}')], 0)),
    ("markdown", ("I show all of it.\nOn two lines.", MARKDOWN, [], 0)),
    ("6 times 7", ("I compute.", "", [("calculate", '{"expression": "6 * 7"}')], 0)),
    ("result:42", ("", "It is 42.", [], 0)),
    ("weather", ("", "I ask.", [("get_weather", '{"city": "Paris"}')], 0)),
    ("result:rain", ("", "It rains.", [], 0)),
]


def answer_to(body):
    last = body["messages"][-1]
    text = ("result:" if last["role"] == "tool" else "") + last["content"]
    for part, answer in SCRIPT:
        if part in text:
            return answer
    questions = sum(message["role"] == "user" for message in body["messages"])
    return "", f"You have asked {questions} times, last: {text}", [], 0


def state():
    seconds = int(time.monotonic() * 1e9)
    rank = {"rank": 0, "phase": HURT, "percent": 100, "failure": {"code": HURT}, "host": HURT, "pid": 7,
            "report": {"resident_bytes": 5, "num_experts": 4, "experts_held": 8, "moe_layers": 2, "steps": seconds // 10**7,
                       "nanoseconds_computing": seconds, "expert_rows_by_layer": [0, seconds // 10**7]}}  # fmt: skip
    return {"version": 1, "phase": "ready", "running": 1, "waiting": 0, "kv_usage_percent": 3, "epoch": 1,
            "counts": {"generation_tokens": seconds // 10**8, "prompt_tokens": 1}, "ranks": [rank]}  # fmt: skip


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def send_json(self, value):
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        self.send_json({"/load": {"healthy": True, "running": 1, "waiting": 0, "pending_tokens": 0, "kv_usage": 0.03},
                        "/state": state(),
                        "/v1/models": {"data": [{"id": MODEL}]}}[self.path])  # fmt: skip

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append(body)
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            self.stream(*answer_to(body), bool(body.get("logprobs")))
            self.send_event("[DONE]")
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            self.server.num_broken += 1  # the client has gone
            self.close_connection = True

    def stream(self, thought, text, calls, pause, logprobs):
        number = 0
        for field, whole in (("reasoning", thought), ("content", text)):
            for word in whole.split(" "):
                if not whole:
                    break
                number += 1
                self.send_delta({field: word if word == whole else word + " "}, number, word if logprobs else None)
                time.sleep(pause)
        if calls:
            self.send_delta({"tool_calls": [{"index": idx, "id": f"c{len(self.server.requests)}.{idx}",
                                             "type": "function", "function": {"name": name, "arguments": arguments}}
                                            for idx, (name, arguments) in enumerate(calls)]}, number + 1)  # fmt: skip
        self.send_delta({}, number + 1, finish="tool_calls" if calls else "stop")

    def send_delta(self, delta, number, word=None, finish=None):
        logprobs = None
        if word is not None:
            top = [{"token": word, "logprob": -0.25}, {"token": HURT, "logprob": -1.5}]
            logprobs = {"content": [{"token": word, "logprob": -0.25, "top_logprobs": top}]}
        choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": logprobs}
        self.send_event(json.dumps({"choices": [choice], "usage": {"completion_tokens": number}}))

    def send_event(self, data):
        event = f"data: {data}\n\n".encode()
        self.wfile.write(f"{len(event):x}\r\n".encode() + event + b"\r\n")


class ScriptedReplica:
    def __init__(self):
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.requests = []
        self.server.num_broken = 0
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()
