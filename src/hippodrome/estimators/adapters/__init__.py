"""Our forecasters in the conventions of other libraries, each in a file that alone imports its library.

``hippodrome.estimators.adapters.neuralforecast.neuralforecast_model`` makes any of our models one for
``neuralforecast.NeuralForecast``; ``hippodrome.estimators.adapters.sktime.HippodromeForecaster`` is a
forecaster of sktime. Neither library is a dependency of ours.
"""
