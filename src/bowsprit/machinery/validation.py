"""Named rules for names, labels, ports and addresses. Each returns its complaints, an empty list when all is well.

Upstream: k8s.io/apimachinery/pkg/util/validation and pkg/api/validation, with their messages.
"""

from __future__ import annotations

import ipaddress
import re

DNS1123_LABEL_MAX_LENGTH = 63
DNS1123_SUBDOMAIN_MAX_LENGTH = 253
LABEL_VALUE_MAX_LENGTH = 63
QUALIFIED_NAME_MAX_LENGTH = 63
DNS1035_LABEL_MAX_LENGTH = 63

_DNS1123_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_DNS1123_SUBDOMAIN = _DNS1123_LABEL + r"(\." + _DNS1123_LABEL + ")*"
_SEARCH_LABEL = "_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?"
_SEARCH_DOMAIN = _SEARCH_LABEL + r"(\." + _SEARCH_LABEL + ")*"
_DNS1035_LABEL = "[a-z]([-a-z0-9]*[a-z0-9])?"
_QUALIFIED_NAME = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_LABEL_VALUE = f"({_QUALIFIED_NAME})?"
_WILDCARD = r"\*\." + _DNS1123_SUBDOMAIN
_C_IDENTIFIER = "[A-Za-z_][A-Za-z0-9_]*"
_HTTP_PATH = r"[A-Za-z0-9/\-._~%!$&'()*+,;=:]+"
_HTTP_HEADER = "[-A-Za-z0-9]+"
_ENV_VAR = "[-._a-zA-Z][-._a-zA-Z0-9]*"
_RELAXED_ENV_VAR = "[ -<>-~]+"
_CONFIG_MAP_KEY = "[-._a-zA-Z0-9]+"
_PERCENT = "[0-9]+%"

_DNS1123_LABEL_TEXT = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', "
    "and must start and end with an alphanumeric character"
)
_DNS1123_SUBDOMAIN_TEXT = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', "
    "and must start and end with an alphanumeric character"
)
_DNS1035_LABEL_TEXT = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, "
    "and end with an alphanumeric character"
)
_QUALIFIED_NAME_TEXT = (
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character"
)
_LABEL_VALUE_TEXT = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', "
    "and must start and end with an alphanumeric character"
)
_WILDCARD_TEXT = (
    "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, "
    "which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character"
)
_C_IDENTIFIER_TEXT = (
    "a valid C identifier must start with alphabetic character or '_', "
    "followed by a string of alphanumeric characters or '_'"
)
_ENV_VAR_TEXT = (
    "a valid environment variable name must consist of alphabetic characters, digits, '_', '-', or '.', "
    "and must not start with a digit"
)

_matches_dns1123_label = re.compile(_DNS1123_LABEL).fullmatch
_matches_dns1123_subdomain = re.compile(_DNS1123_SUBDOMAIN).fullmatch
_matches_search_domain = re.compile(_SEARCH_DOMAIN).fullmatch
_matches_dns1035_label = re.compile(_DNS1035_LABEL).fullmatch
_matches_qualified_name = re.compile(_QUALIFIED_NAME).fullmatch
_matches_label_value = re.compile(_LABEL_VALUE).fullmatch
_matches_wildcard = re.compile(_WILDCARD).fullmatch
_matches_c_identifier = re.compile(_C_IDENTIFIER).fullmatch
_matches_http_path = re.compile(_HTTP_PATH).fullmatch
_matches_http_header = re.compile(_HTTP_HEADER).fullmatch
_matches_env_var = re.compile(_ENV_VAR).fullmatch
_matches_relaxed_env_var = re.compile(_RELAXED_ENV_VAR).fullmatch
_matches_config_map_key = re.compile(_CONFIG_MAP_KEY).fullmatch
_matches_percent = re.compile(_PERCENT).fullmatch
_matches_port_name = re.compile("[-a-z0-9]+").fullmatch
_has_letter = re.compile("[a-z]").search


def empty_error() -> str:
    return "must be non-empty"


def max_length_error(length: int) -> str:
    return f"must be no more than {length} characters"


def max_bytes_error(length: int) -> str:
    """As the newer rules say it (upstream pkg/api/validate/content)."""
    return f"must be no more than {length} bytes"


def inclusive_range_error(low: int, high: int) -> str:
    return f"must be between {low} and {high}, inclusive"


def regex_error(message: str, pattern: str, *examples: str) -> str:
    """The message for a value that does not match, with the pattern and examples as upstream writes them."""
    if not examples:
        return f"{message} (regex used for validation is '{pattern}')"
    shown = " or ".join(f"'{example}', " for example in examples)
    return f"{message} (e.g. {shown}regex used for validation is '{pattern}')"


def _length(value: str) -> int:
    return len(value) if value.isascii() else len(value.encode("utf-8", "surrogatepass"))


def is_dns1123_label(value: str) -> list[str]:
    """A DNS label as RFC 1123 has it: pod and namespace names and the like."""
    errors = []
    if _length(value) > DNS1123_LABEL_MAX_LENGTH:
        errors.append(max_length_error(DNS1123_LABEL_MAX_LENGTH))
    if not _matches_dns1123_label(value):
        if _matches_dns1123_subdomain(value):
            errors.append("must not contain dots")
        else:
            errors.append(regex_error(_DNS1123_LABEL_TEXT, _DNS1123_LABEL, "my-name", "123-abc"))
    return errors


def is_dns1123_subdomain(value: str) -> list[str]:
    """Labels joined by dots: the names of most objects."""
    errors = []
    if _length(value) > DNS1123_SUBDOMAIN_MAX_LENGTH:
        errors.append(max_length_error(DNS1123_SUBDOMAIN_MAX_LENGTH))
    if not _matches_dns1123_subdomain(value):
        errors.append(regex_error(_DNS1123_SUBDOMAIN_TEXT, _DNS1123_SUBDOMAIN, "example.com"))
    return errors


def is_search_domain(value: str) -> list[str]:
    """A subdomain in which underscores may be, as resolvers search in them."""
    errors = []
    if _length(value) > DNS1123_SUBDOMAIN_MAX_LENGTH:
        errors.append(max_length_error(DNS1123_SUBDOMAIN_MAX_LENGTH))
    if not _matches_search_domain(value):
        text = _DNS1123_SUBDOMAIN_TEXT.replace("characters, '-'", "characters, '_', '-'")
        errors.append(regex_error(text, _SEARCH_DOMAIN, "example.com"))
    return errors


def is_dns1035_label(value: str) -> list[str]:
    """A label that begins with a letter: Service names."""
    errors = []
    if _length(value) > DNS1035_LABEL_MAX_LENGTH:
        errors.append(max_length_error(DNS1035_LABEL_MAX_LENGTH))
    if not _matches_dns1035_label(value):
        errors.append(regex_error(_DNS1035_LABEL_TEXT, _DNS1035_LABEL, "my-name", "abc-123"))
    return errors


def is_wildcard_dns1123_subdomain(value: str) -> list[str]:
    errors = []
    if _length(value) > DNS1123_SUBDOMAIN_MAX_LENGTH:
        errors.append(max_length_error(DNS1123_SUBDOMAIN_MAX_LENGTH))
    if not _matches_wildcard(value):
        errors.append(regex_error(_WILDCARD_TEXT, _WILDCARD, "*.example.com"))
    return errors


def _prefix_errors(value: str) -> list[str]:
    errors = []
    if _length(value) > DNS1123_SUBDOMAIN_MAX_LENGTH:
        errors.append(max_bytes_error(DNS1123_SUBDOMAIN_MAX_LENGTH))
    if not _matches_dns1123_subdomain(value):
        errors.append(regex_error(_DNS1123_SUBDOMAIN_TEXT, _DNS1123_SUBDOMAIN, "example.com"))
    return errors


def is_qualified_name(value: str) -> list[str]:
    """`name` or `example.com/name`: label and annotation keys, taints, finalizers."""
    errors = []
    prefix, slash, name = value.rpartition("/")
    if slash and "/" in prefix:
        message = regex_error(
            f"a valid label key {_QUALIFIED_NAME_TEXT}", _QUALIFIED_NAME, "MyName", "my.name", "123-abc"
        )
        return [f"{message} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"]
    if slash:
        if not prefix:
            errors.append(f"prefix part {empty_error()}")
        else:
            errors.extend(f"prefix part {message}" for message in _prefix_errors(prefix))
    if not name:
        errors.append(f"name part {empty_error()}")
    elif _length(name) > QUALIFIED_NAME_MAX_LENGTH:
        errors.append(f"name part {max_bytes_error(QUALIFIED_NAME_MAX_LENGTH)}")
    if not _matches_qualified_name(name):
        message = regex_error(_QUALIFIED_NAME_TEXT, _QUALIFIED_NAME, "MyName", "my.name", "123-abc")
        errors.append(f"name part {message}")
    return errors


def is_valid_label_value(value: str) -> list[str]:
    errors = []
    if _length(value) > LABEL_VALUE_MAX_LENGTH:
        errors.append(max_bytes_error(LABEL_VALUE_MAX_LENGTH))
    if not _matches_label_value(value):
        errors.append(regex_error(_LABEL_VALUE_TEXT, _LABEL_VALUE, "MyValue", "my_value", "12345"))
    return errors


def is_c_identifier(value: str) -> list[str]:
    if _matches_c_identifier(value):
        return []
    return [regex_error(_C_IDENTIFIER_TEXT, _C_IDENTIFIER, "my_name", "MY_NAME", "MyName")]


def is_valid_port_num(port: int) -> list[str]:
    return is_in_range(port, 1, 65535)


def is_in_range(value: int, low: int, high: int) -> list[str]:
    return [] if low <= value <= high else [inclusive_range_error(low, high)]


def is_valid_user_id(uid: int) -> list[str]:
    return is_in_range(uid, 0, 2**31 - 1)


is_valid_group_id = is_valid_user_id


def is_valid_port_name(value: str) -> list[str]:
    """An IANA service name (RFC 6335 section 5.1): at most 15 of a-z, 0-9 and single inner hyphens, with a letter."""
    errors = []
    if _length(value) > 15:
        errors.append(max_length_error(15))
    if not _matches_port_name(value):
        errors.append("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)")
    if not _has_letter(value):
        errors.append("must contain at least one letter (a-z)")
    if "--" in value:
        errors.append("must not contain consecutive hyphens")
    if value and (value[0] == "-" or value[-1] == "-"):
        errors.append("must not begin or end with a hyphen")
    return errors


def parse_ip(value: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address, or None. Like Go's parser it refuses leading zeros; zones are refused too."""
    if "%" in value:
        return None
    try:
        return ipaddress.ip_address(value)
    except ValueError:
        return None


def parse_cidr(value: str) -> ipaddress.IPv4Interface | ipaddress.IPv6Interface | None:
    """The address with its prefix length, or None. The address may have host bits."""
    address, slash, length = value.partition("/")
    if not slash or not (length.isascii() and length.isdigit()) or (len(length) > 1 and length[0] == "0"):
        return None
    if parse_ip(address) is None:
        return None
    try:
        return ipaddress.ip_interface(value)
    except ValueError:
        return None


def is_valid_ip(value: str) -> list[str]:
    """An address as fields take it that were there before the rules became strict; IPv6 may be written in any way."""
    ip = parse_ip(value)
    if ip is None:
        if parse_ip(_without_zeros(value)) is not None:
            return ["must not have leading 0s"]
        return ["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"]
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        return ["must not be an IPv4-mapped IPv6 address"]
    return []


def _without_zeros(value: str) -> str:
    """The dotted part with its leading zeros gone, which older rules overlooked."""
    return re.sub(r"(^|[.:])0+(?=\d+(\.|$|/))", r"\1", value) if value.count(".") == 3 else value


def is_valid_ipv4_address(value: str) -> list[str]:
    return [] if isinstance(parse_ip(value), ipaddress.IPv4Address) else ["must be a valid IPv4 address"]


def is_valid_ipv6_address(value: str) -> list[str]:
    return [] if isinstance(parse_ip(value), ipaddress.IPv6Address) else ["must be a valid IPv6 address"]


def is_valid_cidr(value: str) -> list[str]:
    """An address range as older fields take it."""
    given = parse_cidr(value)
    if given is None:
        if parse_cidr(re.sub(r"/0+(?=\d)", "/", _without_zeros(value))) is not None:
            return ["must not have leading 0s in IP or prefix length"]
        return ["must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"]
    if isinstance(given, ipaddress.IPv6Interface) and given.ip.ipv4_mapped is not None:
        return ["must not have an IPv4-mapped IPv6 address"]
    if given.ip != given.network.network_address:
        return ["must not have bits set beyond the prefix length"]
    return []


def is_valid_percent(value: str) -> list[str]:
    if _matches_percent(value):
        return []
    return [
        regex_error("a valid percent string must be a numeric string followed by an ending '%'", _PERCENT, "1%", "93%")
    ]


def is_http_header_name(value: str) -> list[str]:
    if _matches_http_header(value):
        return []
    return [
        regex_error("a valid HTTP header must consist of alphanumeric characters or '-'", _HTTP_HEADER, "X-Header-Name")
    ]


def is_valid_http_path(value: str) -> bool:
    """The characters that upstream allows in paths of ingresses, webhooks and the like."""
    return _matches_http_path(value) is not None


def is_env_var_name(value: str) -> list[str]:
    errors = []
    if not _matches_env_var(value):
        errors.append(regex_error(_ENV_VAR_TEXT, _ENV_VAR, "my.env-name", "MY_ENV.NAME", "MyEnvName1"))
    return errors + _dot_segment_errors(value)


def is_relaxed_env_var_name(value: str) -> list[str]:
    """What container environments accept since RelaxedEnvironmentVariableValidation."""
    if not value:
        return [f"environment variable name {empty_error()}"]
    if _matches_relaxed_env_var(value):
        return []
    return ["a valid environment variable name must consist only of printable ASCII characters other than '='"]


def is_config_map_key(value: str) -> list[str]:
    errors = []
    if _length(value) > DNS1123_SUBDOMAIN_MAX_LENGTH:
        errors.append(max_length_error(DNS1123_SUBDOMAIN_MAX_LENGTH))
    if not _matches_config_map_key(value):
        message = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'"
        errors.append(regex_error(message, _CONFIG_MAP_KEY, "key.name", "KEY_NAME", "key-name"))
    return errors + _dot_segment_errors(value)


def _dot_segment_errors(value: str) -> list[str]:
    """Names that would leave a folder when used as file names."""
    if value in {".", ".."}:
        return [f"must not be '{value}'"]
    if value.startswith(".."):
        return ["must not start with '..'"]
    return []


def is_valid_path_segment_name(value: str) -> list[str]:
    """A name that is one segment of a URL path: what RBAC objects, and kinds without a stricter rule, need."""
    if value in {".", ".."}:
        return [f"may not be '{value}'"]
    return [f"may not contain '{char}'" for char in ("/", "%") if char in value]


def is_valid_path_segment_prefix(value: str) -> list[str]:
    """Same for a generateName, where `.` may be the beginning of more."""
    return [f"may not contain '{char}'" for char in ("/", "%") if char in value]


def mask_trailing_dash(value: str) -> str:
    """A generateName may end with a dash: what follows makes the name valid."""
    if len(value) > 1 and value.endswith("-"):
        return value[:-2] + "a"
    return value
