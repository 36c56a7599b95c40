"""Suites about videos: Video-MME, MVBench, NExT-QA, and drawn ones, which MVBench's code asks about and scores."""

from collections.abc import Mapping
from typing import Any

from harness.answers import MEAN
from harness.tasks.labels import in_turn, texts
from harness.tasks.shipped.columns import candidates, five_answers, one_of, option_list
from harness.tasks.spec import Metric, Part, SuiteSpec

MVBENCH = (
    *("action_sequence", "moving_count", "action_prediction", "episodic_reasoning", "action_antonym", "action_count"),
    *("scene_transition", "object_shuffle", "object_existence", "fine_grained_pose", "unexpected_action", "moving_direction"),
    *("state_change", "object_interaction", "character_order", "action_localization", "counterfactual_inference"),
    *("fine_grained_action", "moving_attribute", "egocentric_navigation"),
)
"""The twenty tasks of MVBench."""
MINI = ("moving_direction", "moving_attribute", "moving_count", "object_existence")
"""Those of them that the drawn videos have questions of."""
_DOMAINS = ("Knowledge", "Film & Television", "Sports Competition", "Artistic Performance", "Life Record", "Multilingual")
_SUB_CATEGORIES = (
    *("Humanity & History", "Literature & Art", "Biology & Medicine", "Finance & Commerce", "Astronomy", "Geography", "Law"),
    *("Life Tip", "Technology", "Animation", "Movie & TV Show", "Documentary", "News Report", "Esports", "Basketball"),
    *("Football", "Athletics", "Other Sports", "Stage Play", "Magic Show", "Variety Show", "Acrobatics", "Handicraft", "Food"),
    *("Fashion", "Daily Life", "Travel", "Pet & Animal", "Exercise", "Multilingual"),
)
_TASK_TYPES = (
    *("Temporal Perception", "Spatial Perception", "Attribute Perception", "Action Recognition", "Object Recognition"),
    *("OCR Problems", "Counting Problem", "Temporal Reasoning", "Spatial Reasoning", "Action Reasoning", "Object Reasoning"),
    "Information Synopsis",
)
_ASKED = ("video", "question", "candidates", "answer")


def _videomme(doc: Mapping[str, Any]) -> list[str]:
    return [f"data/{doc['videoID']}.{ending}" for ending in ("mp4", "MP4", "mkv")]


def _mvbench(doc: Mapping[str, Any]) -> list[str]:
    """Where lmms-eval looks for it below its own folder of the data."""
    from lmms_eval.tasks.mvbench.utils import DATA_LIST

    place = f"{DATA_LIST[doc['config']]}/{doc['video']}"
    return [place, f"data0613/{place}"]


def _nextqa(doc: Mapping[str, Any]) -> list[str]:
    return [f"NExTVideo/{doc['video']}.{ending}" for ending in ("mp4", "MP4")]


def _drawn(doc: Mapping[str, Any]) -> list[str]:
    return [f"videos/{doc['video']}"]


def _of_mvbench(name: str, task: str, title: str, tables: tuple[str, ...], **more: Any) -> SuiteSpec:
    """Questions of several of MVBench's tasks as one suite: in lmms-eval, these differ in where their files are, and in nothing
    else. An empty answer is not counted, as lmms-eval has it: so the score is a mean only where there is none.
    """
    return SuiteSpec(
        name,
        task,
        "mvbench",
        Metric("mvbench_accuracy", full=100.0),
        title,
        questions=Part(None, "train", _ASKED, tables),
        cluster="video",
        stratum="config",
        labels=in_turn(texts("video", "question", "answer"), candidates),
        options={"task": task, "dataset_name": None},
        config_of=f"mvbench_{tables[0]}",
        **more,
    )


SUITES = (
    SuiteSpec.alike(
        "videomme",
        Metric("videomme_perception_score", MEAN, full=100.0),
        "Video-MME",
        "lmms-eval/Video-MME",
        Part(
            None,
            "test",
            (
                *("videoID", "question_id", "question", "options", "answer"),
                *("duration", "domain", "sub_category", "task_type"),
            ),
        ),
        cluster="videoID",
        stratum="duration",
        labels=in_turn(
            texts("videoID", "question_id", "question"),
            option_list,
            one_of("answer", *"ABCD"),
            one_of("duration", "short", "medium", "long"),
            one_of("domain", *_DOMAINS),
            one_of("sub_category", *_SUB_CATEGORIES),
            one_of("task_type", *_TASK_TYPES),
        ),
        chance=25.0,
        video=_videomme,
        needs={"cv2": "opencv-python-headless"},
    ),
    _of_mvbench("mvbench", "mvbench", "MVBench", MVBENCH, hub="OpenGVLab/MVBench", video=_mvbench),
    SuiteSpec(
        "nextqa",
        "nextqa_mc_test",
        "nextqa",
        Metric("exact_match", MEAN),
        "NExT-QA",
        "lmms-eval/NExTQA",
        Part("MC", "test", ("video", "question", "answer", "a0", "a1", "a2", "a3", "a4")),
        cluster="video",
        labels=in_turn(texts("question", "a0", "a1", "a2", "a3", "a4"), five_answers),
        chance=20.0,
        data="nextqa",
        video=_nextqa,
    ),
    _of_mvbench("mini-video", "mini_video", "Mini videos", MINI, hub="", video=_drawn, frames=8),
)
