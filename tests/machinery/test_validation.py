"""Rules for names give upstream's messages. Long ones are recorded from Kubernetes v1.36."""

# ruff: noqa: E501

import pytest

from bowsprit.machinery import validation

SUBDOMAIN = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric "
    "character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
DNS1035 = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an "
    "alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')"
)


@pytest.mark.parametrize(
    ("rule", "value", "messages"),
    [
        ("is_dns1123_subdomain", "a.b-c", []),
        ("is_dns1123_subdomain", "Bad_", [SUBDOMAIN]),
        ("is_dns1123_subdomain", "a" * 254, ["must be no more than 253 characters"]),
        ("is_dns1123_subdomain", "a\n", [SUBDOMAIN]),
        ("is_dns1123_label", "a.b", ["must not contain dots"]),
        ("is_dns1035_label", "1a", [DNS1035]),
        ("is_qualified_name", "example.com/A_b", []),
        ("is_qualified_name", "/a", ["prefix part must be non-empty"]),
        ("is_valid_label_value", "", []),
        ("is_valid_label_value", "a" * 64, ["must be no more than 63 bytes"]),
        ("is_valid_port_num", 0, ["must be between 1 and 65535, inclusive"]),
        ("is_valid_port_name", "-", ["must contain at least one letter (a-z)", "must not begin or end with a hyphen"]),
        ("is_valid_port_name", "web--x", ["must not contain consecutive hyphens"]),
        ("is_valid_port_name", "aaaaaaaaaaaaaaaa", ["must be no more than 15 characters"]),
        ("is_valid_ip", "10.0.0.256", ["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"]),
        ("is_valid_ip", "::ffff:1.2.3.4", ["must not be an IPv4-mapped IPv6 address"]),
        ("is_valid_ip", "fe80::1%eth0", ["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"]),
        ("is_valid_cidr", "10.0.0.0/33", ["must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"]),
        ("is_valid_cidr", "10.0.0.1/8", ["must not have bits set beyond the prefix length"]),
        ("is_valid_cidr", "10.0.0.0/255.0.0.0", ["must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"]),
        ("is_valid_percent", "10%", []),
        ("is_config_map_key", "..", ["must not be '..'"]),
        ("is_config_map_key", "..a", ["must not start with '..'"]),
        ("is_relaxed_env_var_name", "a=b", ["a valid environment variable name must consist only of printable ASCII characters other than '='"]),
        ("is_valid_path_segment_name", "a/b%", ["may not contain '/'", "may not contain '%'"]),
        ("is_valid_path_segment_name", "..", ["may not be '..'"]),
        ("is_c_identifier", "A_1", []),
    ],
)  # fmt: skip
def test_rules(rule: str, value: object, messages: list[str]) -> None:
    assert getattr(validation, rule)(value) == messages


def test_examples_are_listed_as_upstream_lists_them() -> None:
    [message] = validation.is_qualified_name("a/b/c")
    assert message.startswith("a valid label key must consist of alphanumeric characters")
    assert message.endswith(
        "(e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') "
        "with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
    )
    assert validation.regex_error("m", "r") == "m (regex used for validation is 'r')"
