"""All profiles of a configuration, with what must hold between them (profile.NewMap)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from bowsprit.machinery.objects import Obj
from bowsprit.scheduler.profile import Handle, PluginFactory, Profile, ProfileError


def build_profiles(
    config: Obj, registry: Mapping[str, PluginFactory], handle: Callable[[], Handle]
) -> dict[str, Profile]:
    """Profiles by scheduler name. Raises ProfileError with upstream's message."""
    profiles: dict[str, Profile] = {}
    sort_args: tuple[str, Obj] | None = None
    for item in config["profiles"]:
        name = item["schedulerName"]
        try:
            profile = Profile(item, registry, handle())
        except ProfileError as exc:
            text = f"initializing profiles: creating profile for scheduler name {name}: {exc}"
            raise ProfileError(text) from exc
        sort = profile.at["queueSort"][0].name
        args = next((c.get("args") or {} for c in item.get("pluginConfig") or () if c["name"] == sort), {})
        if sort_args is None:
            sort_args = (sort, args)
        elif sort_args[0] != sort:
            raise ProfileError(f'initializing profiles: different queue sort plugins for profile "{name}"')
        elif sort_args[1] != args:
            raise ProfileError(f'initializing profiles: different queue sort plugin args for profile "{name}"')
        profiles[name] = profile
    return profiles
