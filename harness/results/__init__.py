"""What lies on disk: results and their keys, answers, journals, refusals; and the table made of them."""
