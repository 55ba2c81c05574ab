"""What users of the official clients see of a server that speaks TLS and has a key for each of them."""

import os
import ssl
import time
import unittest

import anthropic
import openai

URL = os.environ["GUARDED_URL"]
TRUST = ssl.create_default_context(cafile=os.environ["GUARDED_CA"])
QUESTION = [{"role": "user", "content": "What is 12 + 30?"}]
FEWEST_SECONDS = 1.5  # between two requests of a key in a hurry there are 6; clients' own patience begins with 0.5


class Keys:
    """The tests; `client`, `ask` and `texts_of_a_stream` are those of an API."""

    def test_an_answer_whole_and_streamed(self):
        client = self.client("sk-patient")
        self.assertIn("42", self.ask(client, max_tokens=300))
        self.assertIn("42", "".join(self.texts_of_a_stream(client)))
        self.assertEqual(len(client.models.list().data), 1)

    def test_an_unknown_authority_is_not_believed(self):
        client = self.client("sk-patient", verify=True)
        with self.assertRaises(self.api.APIConnectionError) as caught:
            self.ask(client)
        self.assertIn("CERTIFICATE_VERIFY_FAILED", str(caught.exception.__cause__))

    def test_a_wrong_key_is_refused(self):
        for key in ("sk-patien", "wrong"):
            client = self.client(key)
            for ask in (lambda: self.ask(client), lambda: client.models.list()):
                with self.assertRaises(self.api.AuthenticationError) as caught:
                    ask()
                self.assertEqual(self.kind_of(caught.exception), self.KIND_OF_WRONG_KEYS)

    def test_a_limit_is_told_and_waited_for(self):
        client = self.client(self.HURRIED_KEY)
        with self.assertRaises(self.api.RateLimitError) as caught:
            for _ in range(100):
                self.ask(client)
        self.assertEqual(self.kind_of(caught.exception), self.KIND_OF_LIMITS)
        fields = caught.exception.response.headers
        self.assertEqual(fields["x-ratelimit-remaining-requests"], "0")
        self.assertGreaterEqual(int(fields["retry-after"]), 2)
        # One more try is enough if it comes when the server has said, and none that comes before.
        begin = time.monotonic()
        self.assertTrue(self.ask(client.with_options(max_retries=1)))
        self.assertGreater(time.monotonic() - begin, FEWEST_SECONDS)
        self.assertIn("42", self.ask(self.client("sk-patient"), max_tokens=300), "nobody else has to wait")


class OpenAisOwn(Keys, unittest.TestCase):
    api = openai
    HURRIED_KEY = "sk-hurried_openai"
    KIND_OF_WRONG_KEYS, KIND_OF_LIMITS = "invalid_api_key", "rate_limit_exceeded"

    def client(self, key, verify=TRUST):
        http_client = openai.DefaultHttpxClient(verify=verify)
        return openai.OpenAI(base_url=URL, api_key=key, http_client=http_client, max_retries=0)

    def ask(self, client, max_tokens=8):
        answer = client.chat.completions.create(model="", messages=QUESTION, max_tokens=max_tokens).choices[0].message
        return answer.content or answer.reasoning_content

    def texts_of_a_stream(self, client):
        with client.chat.completions.create(model="", messages=QUESTION, stream=True) as stream:
            yield from (chunk.choices[0].delta.content or "" for chunk in stream)

    def kind_of(self, error):
        return error.code


class AnthropicsOwn(Keys, unittest.TestCase):
    api = anthropic
    HURRIED_KEY = "sk-hurried_anthropic"
    KIND_OF_WRONG_KEYS, KIND_OF_LIMITS = "authentication_error", "rate_limit_error"

    def client(self, key, verify=TRUST):
        url, http_client = URL.removesuffix("/v1"), anthropic.DefaultHttpxClient(verify=verify)
        return anthropic.Anthropic(base_url=url, api_key=key, http_client=http_client, max_retries=0)

    def ask(self, client, max_tokens=8):
        message = client.messages.create(model="", messages=QUESTION, max_tokens=max_tokens)
        return "".join(block.text for block in message.content) or message.stop_reason

    def texts_of_a_stream(self, client):
        with client.messages.stream(model="", messages=QUESTION, max_tokens=300) as stream:
            yield from stream.text_stream

    def kind_of(self, error):
        return error.body["error"]["type"]


if __name__ == "__main__":
    unittest.main(verbosity=2)
