"""How a width is cut into heads."""


def head_size(width: int, at_most: int = 64) -> int:
    """The largest even divisor of ``width`` that is not above ``at_most``: the default size of a head.

    Raises:
        ValueError: the width is odd, so that no head of even size fits.
    """
    if width < 2 or width % 2:
        raise ValueError(
            f"A width that is cut into heads of even size must be even; got {width}. Take an even one, or "
            f"say the size of a head."
        )
    return next(size for size in range(min(at_most, width), 0, -1) if width % size == 0 and size % 2 == 0)


def check_divides(what: str, part: int, whole_name: str, whole: int) -> None:
    """Raise unless ``part`` heads or groups divide ``whole`` evenly.

    Raises:
        ValueError: they do not.
    """
    if part < 1 or whole % part:
        raise ValueError(
            f"{what} must divide {whole_name}; got {part} for {whole}. "
            f"Take one of {', '.join(str(i) for i in range(1, whole + 1) if whole % i == 0)}."
        )
