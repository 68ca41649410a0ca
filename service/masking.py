"""Takes secrets out of what people read: API keys, signed URLs, webhook secrets, tokens of the hub."""

from __future__ import annotations

import logging
import re

SECRETS = re.compile(
    r"(tadpole_[a-z0-9]+_)[A-Za-z0-9]+|(/storage/u/)[A-Za-z0-9._~=-]+|(whsec_)[A-Za-z0-9+/=]+|(\bhf_)[A-Za-z0-9]{20,}|"
    r"((?:X-Amz-Signature|X-Amz-Credential)=)[A-Za-z0-9%/_-]+|(://[^\s/:@]+:)[^\s/@]+(?=@)"
)


def mask(text: str) -> str:
    """The text with *** in the place of what opens something."""
    return SECRETS.sub(lambda found: next(filter(None, found.groups())) + "***", text)


class MaskSecrets(logging.Filter):
    """No secret reaches a log of the service."""

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        masked = mask(message)
        if masked != message:
            record.msg, record.args = masked, ()
        return True
