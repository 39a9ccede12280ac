"""What one step of training does: learning rate, one update of the weights, and their moving average."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from streamer.training.loss import detection_loss
from streamer.training.network import Detector

_FINAL_RATE = 0.01
_WEIGHT_DECAY = 0.03
_MAX_GRADIENT = 10.0
#: Time constant of the averaged weights, in steps; it is shorter at the start. With 1,000 steps, in a
#: training of about 4,500, the average lagged behind: it found 0.936 of the QR codes, the last weights 0.987
#: (codes_v2).
_AVERAGE_STEPS = 100

Batch = tuple[Tensor, Tensor, Tensor]


def cosine(progress: float) -> float:
    """Return the factor of the learning rate at a progress of 0..1: half a cosine from 1 to 0.01."""
    return _FINAL_RATE + (1 - _FINAL_RATE) * 0.5 * (1 + math.cos(math.pi * min(1.0, max(0.0, progress))))


def warmed_up(step: int, warmup_steps: int, progress: Callable[[], float]) -> float:
    """Return the factor of the learning rate: it rises linearly for some steps, then `cosine` applies."""
    return (step + 1) / warmup_steps if step < warmup_steps else cosine(progress())


def averaged(network: nn.Module) -> AveragedModel:
    """Return the exponential moving average of a network's weights and statistics."""

    def blend(average: Tensor, current: Tensor, count: Tensor) -> Tensor:
        steps = float(count)
        decay = 1 - 1 / min(_AVERAGE_STEPS, 10 + steps)
        return average * decay + current * (1 - decay) if average.is_floating_point() else current

    return AveragedModel(network, avg_fn=blend, use_buffers=True)


def make_optimiser(network: nn.Module, learning_rate: float, device: torch.device) -> torch.optim.Optimizer:
    """Return AdamW; weights of convolutions decay, biases and normalisations do not."""
    decayed = [p for p in network.parameters() if p.ndim > 1]
    groups: list[dict[str, object]] = [
        {"params": decayed, "weight_decay": _WEIGHT_DECAY},
        {"params": [p for p in network.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=learning_rate, fused=device.type == "cuda")


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of all groups."""
    for group in optimiser.param_groups:
        group["lr"] = rate


def learn(
    network: Detector,
    optimiser: torch.optim.Optimizer,
    batch: Batch,
    cells: tuple[Tensor, Tensor],
    device: torch.device,
    *,
    half: bool = True,
) -> Tensor:
    """Take one step on a batch of views; return the losses of scores and boxes (2,).

    ``batch`` has images (n, 3, h, w) uint8 RGB, class ids (n, objects) and boxes (n, objects, 4); ``cells``
    is the `grid` of the images. With ``half`` the network computes in bfloat16.
    """
    images, class_ids, boxes = (part.to(device, non_blocking=True) for part in batch)
    inputs = images.to(memory_format=torch.channels_last).float() / 255
    with torch.autocast(device.type, torch.bfloat16, enabled=half):
        logits, distances = network(inputs)
    losses = torch.stack(detection_loss(logits, distances, *cells, class_ids, boxes))
    optimiser.zero_grad(set_to_none=True)
    losses.sum().backward()
    nn.utils.clip_grad_norm_(network.parameters(), _MAX_GRADIENT)
    optimiser.step()
    return losses.detach()


def has_bfloat16(device: torch.device) -> bool:
    """Return whether the device computes in bfloat16 faster than in float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8", errors="replace")
    except OSError:
        return False
    words = set(text.split())
    return bool(words & {"avx512_bf16", "amx_bf16", "bf16"})
