"""Compile fitted estimators to the deployed forms: scorecards and ONNX graphs."""
