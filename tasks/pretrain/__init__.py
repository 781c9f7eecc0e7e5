"""Learning without labels: a task's encoder and pool are trained by what samples say of themselves.

`PretrainTask` holds the task of any modality, `PretrainData` its data; `load_pretrained` gives the trained task back.
"""

from tasks.pretrain.data import PretrainData
from tasks.pretrain.task import PretrainTask, load_pretrained

__all__ = ["PretrainData", "PretrainTask", "load_pretrained"]
