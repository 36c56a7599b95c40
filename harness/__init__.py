"""From a model's name to a result on disk: models, evaluation, cost, statistics, the store and the pytest plugin."""
