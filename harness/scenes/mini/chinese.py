"""Multiple-choice questions about a scene in Chinese, for the mini edition of MMBench-CN."""

import re
from dataclasses import replace

from harness.scenes.questions import Question, plural
from harness.scenes.world import CELLS, COLORS, SHAPES

_COLORS = ("红色", "绿色", "蓝色", "黄色", "紫色", "橙色", "青色", "棕色")
_SHAPES = ("圆形", "正方形", "三角形", "菱形", "十字形", "星形", "圆环", "月牙形")
_CELLS = ("左上角", "上方", "右上角", "左侧", "中央", "右侧", "左下角", "下方", "右下角")
_WORDS = {
    **dict(zip(COLORS, _COLORS, strict=True)),
    **dict(zip(SHAPES, _SHAPES, strict=True)),
    **dict(zip(map(plural, SHAPES), _SHAPES, strict=True)),
    **dict(zip(CELLS, _CELLS, strict=True)),
    "objects": "物体",
}
_ENDINGS = {"word": "单词", "number": "数字"}
_FORMS = {
    r"What color is the object in the (.+)\?": "图中{0}的物体是什么颜色？",
    r"What color is the (.+)\?": "图中的{0}是什么颜色？",
    r"What shape is the object in the (.+)\?": "图中{0}的物体是什么形状？",
    r"What shape is the (.+) object\?": "图中{0}的物体是什么形状？",
    r"Where is the (.+)\?": "图中的{0}在哪里？",
    r"How many (.+) are in the image\?": "图中有多少个{0}？",
    r"What (word|number) is under the (.+)\?": "图中{1}下面的{0}是什么？",
    r"What (word|number) is in the (.+)\?": "图中{1}的{0}是什么？",
}
HINT = "请看图。"


def in_chinese(question: Question) -> Question:
    """The question in Chinese, with its options; words and numbers that are read off the picture stay."""
    for form, chinese in _FORMS.items():
        if asked := re.fullmatch(form, question.text):
            text = chinese.format(*map(_translated, asked.groups()))
            choices = tuple(_WORDS.get(choice, choice) for choice in question.choices)
            return replace(question, text=text, choices=choices, hint=HINT if question.hint else "")
    raise ValueError(f"no Chinese for: {question.text}")


def _translated(phrase: str) -> str:
    if phrase in _ENDINGS:
        return _ENDINGS[phrase]
    return _WORDS.get(phrase) or "".join(_WORDS[word] for word in phrase.split())
