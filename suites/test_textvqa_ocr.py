"""TextVQA with the words that an OCR system read in the prompt, as LLaVA and the papers after it ask it."""


def test_textvqa_ocr(cell):
    cell.check()
