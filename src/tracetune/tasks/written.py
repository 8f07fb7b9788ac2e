"""Written arithmetic: the short work a person puts on paper, digit by digit, for one operation.

Addition, subtraction and multiplication go from the last digit to the first with the carry as one more term;
division goes from the first digit with the remainder. Every piece needs only a small table, so a model that
reads digits one by one can learn it.
"""

from typing import NamedTuple

OPERATION_NAMES = {"+": "addition", "-": "subtraction", "×": "multiplication", "÷": "division"}


class Calculation(NamedTuple):
    """One operation on whole numbers of at least 0; a quotient is exact.

    >>> Calculation(47, "+", 38).work
    '47 + 38: 7+8=15, 4+3+1=8, so 85.'
    >>> Calculation(85, "-", 38).work
    '85 - 38: 15-8=7, 8-3-1=4, so 47.'
    >>> Calculation(47, "×", 6).work
    '47 × 6: 7×6=42, 4×6+4=28, so 282.'
    >>> Calculation(282, "÷", 6).work
    '282 ÷ 6: 28÷6=4 r4, 42÷6=7 r0, so 47.'
    """

    left: int
    operation: str
    right: int

    @property
    def result(self) -> int:
        """The value; below 0 only for a subtraction from a smaller number."""
        if self.operation == "+":
            return self.left + self.right
        if self.operation == "-":
            return self.left - self.right
        return self.left * self.right if self.operation == "×" else self.left // self.right

    @property
    def work(self) -> str:
        """The whole step as one line."""
        pieces = _PIECES[self.operation](self.left, self.right)
        return f"{self.left} {self.operation} {self.right}: {', '.join(pieces)}, so {self.result}."

    @property
    def claim(self) -> str:
        """The result alone.

        >>> Calculation(47, "+", 38).claim
        '47 + 38 = 85.'
        """
        return f"{self.left} {self.operation} {self.right} = {self.result}."


def _digits(number: int, width: int) -> list[int]:
    """Decimal digits, the last first, padded with zeros."""
    return [int(digit) for digit in reversed(str(number).zfill(width))]


def _add(left: int, right: int) -> list[str]:
    width, carry, pieces = max(len(str(left)), len(str(right))), 0, []
    for a, b in zip(_digits(left, width), _digits(right, width), strict=True):
        total = a + b + carry
        pieces.append(f"{a}+{b}{'+1' if carry else ''}={total}")
        carry = total // 10
    return pieces


def _subtract(left: int, right: int) -> list[str]:
    if left < right:
        return [*_subtract(right, left), f"{right}-{left}={right - left}"]
    width, borrow, pieces = len(str(left)), 0, []
    for a, b in zip(_digits(left, width), _digits(right, width), strict=True):
        top = a + 10 if a < b + borrow else a
        pieces.append(f"{top}-{b}{'-1' if borrow else ''}={top - b - borrow}")
        borrow = int(top > 9)
    return pieces


def _multiply(left: int, right: int) -> list[str]:
    if right > 9:
        return _long_multiply(left, right)
    carry, pieces = 0, []
    for a in _digits(left, 1):
        total = a * right + carry
        pieces.append(f"{a}×{right}{f'+{carry}' if carry else ''}={total}")
        carry = total // 10
    return pieces


def _long_multiply(left: int, right: int) -> list[str]:
    """One product per digit of the right number, then running sums."""
    parts = [digit * 10**place for place, digit in enumerate(_digits(right, 1)) if digit]
    pieces = [f"{left}×{part}={left * part}" for part in parts]
    total = left * parts[0]
    for part in parts[1:]:
        pieces.append(f"{total}+{left * part}={total + left * part}")
        total += left * part
    return pieces


def _divide(left: int, right: int) -> list[str]:
    remainder, pieces = 0, []
    for digit in reversed(_digits(left, 1)):
        chunk = remainder * 10 + digit
        remainder = chunk % right
        if pieces or chunk >= right:  # leading zeros of the quotient are not written
            pieces.append(f"{chunk}÷{right}={chunk // right} r{remainder}")
    return pieces or [f"{left}÷{right}=0 r{left}"]


_PIECES = {"+": _add, "-": _subtract, "×": _multiply, "÷": _divide}
