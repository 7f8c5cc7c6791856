"""Snapshots for tests: name the facts that matter, everything else is "not part of this test"."""

from gpudiag.snapshot import (
    Driver,
    Environment,
    Gpu,
    KernelLog,
    Nvml,
    Packages,
    Snapshot,
    System,
    TorchBuild,
    Variable,
)

ABSENT = "not part of this test"
GIB = 2**30


def gpu(index=0, **facts):
    return Gpu.missing(ABSENT, **{"index": index, "uuid": f"GPU-{index:08x}"} | facts)


def variables(**values):
    return tuple(Variable(name=name, value=value) for name, value in values.items())


def snapshot(
    *,
    gpus=None,
    nvml=None,
    driver=None,
    torch=None,
    packages=None,
    system=None,
    env=None,
    misspelt=None,
    dangling=None,
    events=None,
):
    return Snapshot(
        nvml=Nvml.missing(ABSENT, **({} if gpus is None else {"gpus": tuple(gpus)}) | (nvml or {})),
        driver=Driver.missing(ABSENT, **driver or {}),
        torch=TorchBuild.missing(ABSENT, **torch or {}),
        packages=Packages.missing(ABSENT, **packages or {}),
        system=System.missing(ABSENT, **system or {}),
        environment=Environment.missing(
            ABSENT,
            **({} if env is None else {"variables": variables(**env)})
            | ({} if misspelt is None else {"misspelt": tuple(misspelt)})
            | ({} if dangling is None else {"dangling": tuple(dangling)}),
        ),
        kernel_log=KernelLog.missing(ABSENT, **({} if events is None else {"events": events})),
    )


def only(rule, seen):
    """The one finding of a rule."""
    findings = rule(seen).findings
    assert len(findings) == 1, findings
    return findings[0]


def silent(rule, seen):
    """Whether the rule was asked about everything and had nothing to say."""
    answer = rule(seen)
    return not answer.findings and not answer.gaps
