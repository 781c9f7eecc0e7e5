"""The guide's networks of torchaudio and timm, as they stand there, are trained, mapped and given weights."""

import re

import pytest
import torch
import torchaudio
from toy import ROOT

from tasks.audio import AudioTask
from tasks.audio.clips import Clip, collate_clips
from tasks.task.weights import load_weights

timm = pytest.importorskip("timm", reason="no timm: pip install timm")
CODE = next(block for block in re.findall(r"```python\n(.*?)```", (ROOT / "docs/audio.md").read_text(), re.DOTALL)
            if "wav2vec2_base" in block)  # fmt: skip
SPEC = {"kind": "multiclass", "classes": ["a", "b"], "sample_rate": 16000, "train_size": 4}
SMALL = {"encoder_num_layers": 1, "encoder_embed_dim": 32, "encoder_num_heads": 2, "encoder_ff_interm_features": 32}


@pytest.fixture(params=["Wav2Vec2", "Timm"])
def task(request, tmp_path, monkeypatch):
    (tmp_path / "mynets.py").write_text(f"import timm\nimport torch\nimport torchaudio\n\n{CODE}")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "mynets", raising=False)
    if request.param == "Wav2Vec2":  # the base model's hundred million weights are not for a test
        whole = torchaudio.models.wav2vec2_model

        def small(**options):
            layers = [(8, 10, 5), (8, 8, 4), (8, 4, 4)]
            options = {"extractor_mode": "group_norm", "extractor_conv_layer_config": layers,
                       "extractor_conv_bias": False, "encoder_projection_dropout": 0.0, "encoder_pos_conv_kernel": 8,
                       "encoder_pos_conv_groups": 2, "encoder_attention_dropout": 0.0, "encoder_dropout": 0.0,
                       "encoder_ff_interm_dropout": 0.0, "encoder_layer_norm_first": False, "encoder_layer_drop": 0.0,
                       "aux_num_out": None, **options}  # fmt: skip
            return whole(**options)

        monkeypatch.setattr(torchaudio.models, "wav2vec2_base", small)
    arguments = SMALL if request.param == "Wav2Vec2" else {"stage": 1}
    return AudioTask(SPEC, encoder=f"mynets.{request.param}", encoder_args=arguments, mels=32, pool="both")


def test_it_trains_explains_and_begins_with_weights(task, tmp_path):
    torch.manual_seed(0)
    batch = collate_clips([_clip(16000, 0), _clip(12000, 1)])
    loss = task.loss(task.train()(batch), task.target(batch))
    loss.backward()
    assert all(torch.isfinite(one.grad).all() for one in task.encoder.parameters() if one.grad is not None)
    assert any(one.grad is not None and one.grad.any() for one in task.encoder.parameters())
    task.eval()
    alone = task(collate_clips([_clip(12000, 1)]))
    torch.testing.assert_close(task(batch)[1:], alone, atol=1e-4, rtol=1e-4)  # whatever is beside it
    evidence = task.evidence(batch)
    torch.testing.assert_close(
        evidence.maps.flatten(2).sum(2) + task.head[-1].bias, evidence.logits, atol=1e-3, rtol=1e-3
    )
    torch.save(task.network.state_dict(), tmp_path / "weights.pt")
    said = load_weights(task.network, tmp_path / "weights.pt")
    count = len(task.network.state_dict())
    assert said == [f"Weights of {tmp_path / 'weights.pt'}: {count} of the encoder's {count} tensors are loaded"]


def _clip(samples, number):
    wave = torch.randn(samples, generator=torch.Generator().manual_seed(number))
    return Clip(wave=wave, target=torch.tensor(number), id=str(number), truth=[])
