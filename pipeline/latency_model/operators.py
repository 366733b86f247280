"""What a runtime will run, operator by operator, in terms that cost follows from."""

from __future__ import annotations

from pydantic import Field

from device_bench.protocol import Record


class Operator(Record):
    """One operator of a file as the runtime runs it, fused neighbours included.

    Matrix products, convolutions included, are seen as `batches` products of [rows, depth] by
    [depth, columns]: a convolution has a row for each output pixel, a column for each output channel, and
    as depth the inputs of one output (kernel positions × input channels of a group).

    `kind`: "conv", "depthwise", "dense", "matmul", or the lower-case name of whatever else it is.
    `detail`: what makes it another kernel of that kind (how a transpose permutes, whether one side of a sum
    is constant or broadcast). `taps`: kernel positions. `stride`: product of the strides.
    `inner`: length of the contiguous run that a kernel works along, the output's last dimension.
    Sizes are counted in elements, for one inference.
    """

    kind: str
    detail: str = ""
    inputs: int = Field(ge=0)
    outputs: int = Field(ge=0)
    weights: int = Field(default=0, ge=0)
    batches: int = Field(default=1, ge=1)
    rows: int = Field(default=0, ge=0)
    columns: int = Field(default=0, ge=0)
    depth: int = Field(default=0, ge=0)
    taps: int = Field(default=1, ge=1)
    stride: int = Field(default=1, ge=1)
    inner: int = Field(default=1, ge=0)

    @property
    def macs(self) -> int:
        """Multiplications and additions of a matrix product, 0 for others."""
        return self.batches * self.rows * self.columns * self.depth

    @property
    def family(self) -> str:
        """What is predicted together: kind and detail."""
        return f"{self.kind} {self.detail}".strip()


# A whole inference is its operators and this one, which stands for what each call costs by itself.
def invocation(inputs: int, outputs: int) -> Operator:
    """The call: `inputs` and `outputs` of the file, in elements."""
    return Operator(kind="invocation", inputs=inputs, outputs=outputs)
