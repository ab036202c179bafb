"""manual: a bank-transfer request; the buyer pays under a creditor reference (ISO 11649) of the invoice's number."""

from pipeline.payments.gateway import Attempt, GatewayOutcome

REFERENCE_CHARACTERS_MAX = 21


def creditor_reference(invoice_number: str) -> str:
    """
    The ISO 11649 reference of an invoice number: RF, two check digits, then its letters and digits.

    "RM-2013-0001" -> "RF59RM20130001".

    Raises:
        ValueError: The number has no letter or digit, or more than 21.
    """
    body = "".join(character for character in invoice_number.upper() if character.isascii() and character.isalnum())
    if not 1 <= len(body) <= REFERENCE_CHARACTERS_MAX:
        raise ValueError(
            f"{invoice_number!r} has {len(body)} letters and digits; a creditor reference takes 1 to"
            f" {REFERENCE_CHARACTERS_MAX}"
        )
    return f"RF{98 - _remainder(body + 'RF00'):02d}{body}"


def is_creditor_reference(reference: str) -> bool:
    """Whether the check digits hold; spaces do not matter."""
    compact = reference.replace(" ", "").upper()
    if not (5 <= len(compact) <= REFERENCE_CHARACTERS_MAX + 4 and compact.isascii() and compact.isalnum()):
        return False
    return compact.startswith("RF") and compact[2:4].isdigit() and _remainder(compact[4:] + compact[:4]) == 1


def _remainder(text: str) -> int:
    # ISO 7064 MOD 97-10: a letter stands for two digits, A for 10.
    return int("".join(str(int(character, 36)) for character in text)) % 97


class ManualGateway:
    """Asks by naming the reference; whether the money came is seen on the bank statement, not here."""

    name = "manual"
    tells_later = False

    def request(self, attempt: Attempt) -> GatewayOutcome:
        """The request is the reference itself, printed on the invoice."""
        return GatewayOutcome("requested", creditor_reference(attempt.invoice_number), "bank transfer")

    def look_up(self, attempt: Attempt) -> GatewayOutcome | None:
        """The same answer as request: nothing outside knows of a bank-transfer request."""
        return self.request(attempt)
