"""A language model that scores, behind a stand-in of an OpenAI-compatible endpoint."""

import asyncio
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import requests

from fitprune.errors import FitPruneError
from harness.answering import evaluate
from harness.answering import judge as judges
from harness.answering.evaluate import conditions
from harness.answering.judge import Judge, asked, open_judge
from harness.cells import CellSettings
from harness.tasks import build, specs
from harness.tasks.specs import find_suite
from tests.support.evaluating import evaluate_cell
from tests.support.own_task import write_rows, write_task
from tests.support.tiny_llava import picture, scripted, write


class Endpoint(BaseHTTPRequestHandler):
    """Says 1 of a red answer, 0 of any other."""

    def do_GET(self):
        self.reply({"data": [{"id": name} for name in self.server.models]})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.bodies.append(body)
        time.sleep(self.server.delay)
        asked = str(body["messages"][-1]["content"])
        text = str(float(asked == "red" or "| red |" in asked))
        self.reply(self.server.answer or {"model": body["model"], "choices": [{"message": {"content": text}}]})

    def reply(self, found):
        text = json.dumps(found).encode()
        self.send_response(self.server.status if self.command == "POST" else 200)
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


@pytest.fixture
def endpoint():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    server.models, server.bodies, server.delay, server.status, server.answer = ["judge-7b"], [], 0, 200, None
    server.url = f"http://127.0.0.1:{server.server_port}/v1"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def judged(tmp_path, monkeypatch):
    """The data of a task that asks a judge about each answer."""
    monkeypatch.setenv("COLORS", "judged")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setitem(specs._SHIPPED, "colors", write_task(tmp_path / "task", ["judged"]))
    for cached in (find_suite, build.task_manager, open_judge):
        cached.cache_clear()
    yield str(write_rows(tmp_path / "d"))
    for cached in (find_suite, build.task_manager, open_judge):
        cached.cache_clear()


def test_a_judge_scores_and_is_asked_once_about_each_answer(judged, endpoint):
    model = scripted({"color 0": "red", "color 1": "red", "": "blue"})
    answers = evaluate_cell(model, None, "colors", data=judged, judge=endpoint.url)
    assert [answer.score for answer in answers.answers] == [1, 1, 0, 0, 0, 0, 0, 0]
    assert answers.score == 25
    assert {body["model"] for body in endpoint.bodies} == {"judge-7b"}  # whatever the task asks for
    contents = [body["messages"][0]["content"] for body in endpoint.bodies]
    assert sorted(set(contents)) == sorted(contents)  # each once
    assert evaluate_cell(model, None, "colors", data=judged, judge=endpoint.url).score == 25
    assert len(endpoint.bodies) == len(contents)


def test_mm_vet_is_scored_by_the_judge_as_lmms_eval_scores_it(judged, endpoint, tmp_path, monkeypatch):
    """Its own code asks, with its own prompt; the score is its own aggregate, which is the mean of the judge's scores."""
    rows = [
        {
            "question_id": f"v1_{n}",
            "image": picture(n),
            "question": f"what color {n} ?",
            "answer": "red<OR>crimson",
            "capability": "rec,ocr" if n % 2 else "rec",
        }
        for n in range(6)
    ]
    write(tmp_path / "vet", "mmvet/default/test", rows)
    own, plain = {}, evaluate.scored

    def scored(spec, task, samples, images, aggregates):
        own.update(aggregates)
        return plain(spec, task, samples, images, aggregates)

    monkeypatch.setattr(evaluate, "scored", scored)
    model = scripted({"color 0": "red", "color 3": "red", "": "blue"})
    answers = evaluate_cell(model, None, "mmvet", data=str(tmp_path / "vet"), judge=endpoint.url)
    assert [answer.score for answer in answers.answers] == [1, 0, 0, 1, 0, 0]
    assert answers.score == own["gpt_eval_score,none"] == pytest.approx(100 / 3)
    prompts = [str(body["messages"][-1]["content"]) for body in endpoint.bodies]
    assert all("Compare the ground truth and prediction" in prompt and "red <OR> crimson" in prompt for prompt in prompts)


def test_the_judges_model_and_prompts_are_in_the_key(judged, endpoint):
    endpoint.models = ["judge-7b", "other"]
    one, other = (
        conditions("colors", CellSettings(judged, judge=f"{endpoint.url}#{name}"), "float32")["generation"]["judge"]
        for name in endpoint.models
    )
    assert (one["model"], other["model"]) == ("judge-7b", "other")
    assert one["prompts"] == other["prompts"]
    with (build.task_folder("colors") / "utils.py").open("a") as prompts:
        prompts.write("# another prompt\n")
    changed = conditions("colors", CellSettings(judged, judge=f"{endpoint.url}#other"), "float32")["generation"]["judge"]
    assert changed["prompts"] != other["prompts"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"status": 503}, "answers 503"),
        ({"answer": {"error": "none"}}, "gave no chat completion: {'error': 'none'}"),
        ({"delay": 1}, "gave no answer in 0.2 s"),
    ],
)
def test_a_judge_that_does_not_answer_ends_the_cell_in_one_line(judged, endpoint, monkeypatch, change, words):
    monkeypatch.setattr(judges, "TIMEOUT", 0.2)
    vars(endpoint).update(change)
    with pytest.raises(FitPruneError, match=f"^suite 'colors': the judge at {endpoint.url}.*{words}") as refused:
        evaluate_cell(scripted({"": "red"}), None, "colors", data=judged, judge=endpoint.url)
    assert "\n" not in str(refused.value)
    assert len(endpoint.bodies) == 1  # the task's own way is to ask for ever


def test_an_endpoint_says_which_models_it_has(judged, endpoint):
    endpoint.models = ["a", "b"]
    with pytest.raises(FitPruneError, match=f"has 2 models; name one, as {endpoint.url}#MODEL: a, b"):
        open_judge(endpoint.url)
    with pytest.raises(FitPruneError, match="has no model c; it has a, b"):
        open_judge(f"{endpoint.url}#c")
    assert open_judge(f"{endpoint.url}/chat/completions#b").model == "b"
    with pytest.raises(FitPruneError, match="is no address of an endpoint"):
        open_judge("gpt-4")
    with pytest.raises(FitPruneError, match=r"the judge at http://127\.0\.0\.1:9/v1/models cannot be asked"):
        open_judge("http://127.0.0.1:9/v1")


def test_outside_requests_go_where_they_did(judged, endpoint, tmp_path):
    with asked(Judge(endpoint.url, "judge-7b", tmp_path), "colors"):
        said = requests.post("https://api.openai.com/v1/chat/completions", json={"messages": [{"content": "red"}]})
        assert said.json()["choices"][0]["message"]["content"] == "1.0"
    assert requests.get(f"{endpoint.url}/models").json()["data"] == [{"id": "judge-7b"}]


def test_the_openai_package_asks_the_judge_whatever_address_the_task_has(endpoint, tmp_path):
    openai = pytest.importorskip("openai")
    given = {"model": "gpt-4o", "messages": [{"role": "user", "content": "red"}]}
    with asked(Judge(endpoint.url, "judge-7b", tmp_path), "colors"):
        said = openai.OpenAI(api_key="none", base_url="https://api.openai.com/v1").chat.completions.create(**given)
        assert said.choices[0].message.content == "1.0"
        client = openai.AsyncOpenAI(api_key="none", base_url="https://api.openai.com/v1")
        assert asyncio.run(client.chat.completions.create(**given)).choices[0].message.content == "1.0"
    assert [body["model"] for body in endpoint.bodies] == ["judge-7b"]  # the same question, asked once
    with pytest.raises(FitPruneError, match="its scoring asks a language model; give --judge URL"), asked(None, "colors"):
        openai.OpenAI(api_key="none", base_url="https://api.openai.com/v1").chat.completions.create(**given)
