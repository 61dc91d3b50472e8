"""The settings of `unnoise export`."""

from dataclasses import dataclass
from typing import Literal

from unnoise.config import SamplingOptions
from unnoise.options import option


@dataclass(frozen=True)
class ExportConfig(SamplingOptions):
    """Settings of `unnoise export`."""

    run: str = option("", "run folder or model file", title="export")
    to: Literal["diffusers", "onnx", "numpy", "web"] = option(
        "diffusers",
        "format: a DDPMPipeline folder of diffusers, an ONNX file, an ONNX file with a script that needs numpy and "
        "onnxruntime alone, or a page for the browser",
    )
    precision: Literal["fp32", "fp16"] = option("fp32", "number format of the weights in an ONNX file")
    out: str | None = option(None, "new folder (default: a new one in the run folder)")
