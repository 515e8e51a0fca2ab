"""Will it fit, and how fast can it be? Devices as their makers describe them.

Bounds, not forecasts: nothing is faster than the memory that it reads and the products that it
takes. The course measures how near a program comes.
"""

from dataclasses import dataclass
from math import isnan


@dataclass(frozen=True)
class Device:
    """What a model has to live with on one device.

    Parameters
    ----------
    name : str
    memory : float
        Bytes that hold weights and whatever else runs.
    bandwidth : float
        Bytes per second that its processor reads from there at most.
    operations : float
        Operations on 8-bit integers per second of its processor, its cores together; a
        multiplication and an addition are two. NaN where nobody knows: then memory alone counts.
    source : str
        Where these figures are from.
    battery : float
        Watt-hours, 0 for none.
    """

    name: str
    memory: float
    bandwidth: float
    operations: float
    source: str
    battery: float = 0.0


# Bandwidth is the clock of the memory times its width. Operations are cores x clock x vectors of
# 16 bytes a cycle x 32 (Arm's SDOT takes 16 products of bytes in a vector); the Cortex-M7 has
# SMLAD, two products of 16 bits a cycle. Graphics and neural processors are not counted.
DEVICES = (
    Device(
        "microcontroller STM32H743",
        memory=2 * 2**20,  # flash, which holds the weights; 1 MB of RAM holds the rest
        bandwidth=8 * 240e6,
        operations=480e6 * 2 * 2,
        source="STMicroelectronics, data sheet DS12110: 480 MHz, a bus of 64 bits at 240 MHz",
    ),
    Device(
        "board Raspberry Pi 5",
        memory=8 * 2**30,
        bandwidth=4 * 4267e6,
        operations=4 * 2.4e9 * 2 * 32,
        source="Raspberry Pi, product brief: LPDDR4X-4267 (32 bits), four Cortex-A76 at 2.4 GHz",
    ),
    Device(
        "phone Galaxy S24 (US)",
        memory=8 * 2**30,
        bandwidth=8 * 9600e6,
        operations=(3.39e9 * 4 + 3 * 3.1e9 * 2 + 2 * 2.9e9 * 2) * 32,
        source="Qualcomm, Snapdragon 8 Gen 3 for Galaxy: LPDDR5X at 4,800 MHz; Samsung: 4,000 mAh",
        battery=15.5,
    ),
    Device(
        "laptop MacBook Air M2",
        memory=8 * 2**30,
        bandwidth=100e9,
        operations=4 * 3.5e9 * 4 * 32,
        source="Apple, technical specifications 2022: 100 GB/s, four performance cores, 52.6 Wh",
        battery=52.6,
    ),
)


def fits(device: Device, needed: float, share: float = 0.5) -> bool:
    """Tell whether bytes fit into a share of a device's memory.

    Parameters
    ----------
    device : Device
    needed : float
        Bytes: weights, the cache of keys and values, what is in between.
    share : float
        Of the memory, for the system and other programs want the rest.

    Returns
    -------
    bool

    Examples
    --------
    >>> [device.name.split()[0] for device in DEVICES if fits(device, 135e6)]
    ['board', 'phone', 'laptop']
    """
    _check(needed=needed, share=share)
    return needed <= share * device.memory


def seconds_a_call(device: Device, read: float, operations: float) -> float:
    """Return the least seconds of a call, by the slower of its two limits.

    The roofline (Williams et al. 2009, doi 10.1145/1498765.1498785): memory and arithmetic work
    at the same time, so the longer of the two is what is waited for.

    Parameters
    ----------
    device : Device
    read : float
        Bytes: the weights once, however many tokens share them, and what is kept of the text.
    operations : float
        Two for each weight and token.

    Returns
    -------
    float

    Examples
    --------
    A model of 135 million weights in a byte each writes one token on the board:

    >>> board = DEVICES[1]
    >>> f"{1 / seconds_a_call(board, 135e6, 2 * 135e6):.0f} tokens/s at most"
    '126 tokens/s at most'
    """
    _check(read=read, operations=operations)
    limits = read / device.bandwidth, operations / device.operations
    return max(limit for limit in limits if not isnan(limit))


def calls_a_charge(device: Device, seconds: float, watts: float) -> float:
    """Return how often a call fits into a full battery.

    Parameters
    ----------
    device : Device
    seconds : float
        That one call takes.
    watts : float
        That the whole device takes meanwhile.

    Returns
    -------
    float
        Infinity for a device on a cable.
    """
    _check(seconds=seconds, watts=watts)
    return device.battery * 3600 / (watts * seconds) if device.battery else float("inf")


def _check(**given) -> None:
    for name, value in given.items():
        if not 0 < value < float("inf"):
            raise ValueError(f"{name} is {value}; a number above 0 is wanted")
    if given.get("share", 0) > 1:
        raise ValueError(f"share is {given['share']}; a number up to 1 is wanted")
