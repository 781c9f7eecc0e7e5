"""The application: Lightning tasks and data for graphs, audio and volumes on top of `modalpool`.

Run it as ``python -m tasks fit -c configs/<modality>/<name>.yaml``. This package is not part of the wheel.
Importing it imports nothing: each modality (`tasks.graph`, `tasks.audio`, `tasks.volume`) loads only its own field's
library.
"""
