"""Fitted estimators compiled into what is deployed: scorecards and ONNX graphs."""
