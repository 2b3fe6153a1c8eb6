"""Flunder and Fischer: what the well-known sample API server serves, in one file.

    bowsprit extension run examples/wardle/wardle.py:app --dev
    kubectl get flunders,fischers

A flunder refers to another flunder or to a fischer; v1alpha1 says so with a name and a type, v1beta1 with a field for each.
A fischer names flunders that must not be.
"""

from typing import Literal

from bowsprit.extension import App, Forbidden, Invalid, Kind, Model, RequestContext

app = App("wardle.example.com")

ReferenceType = Literal["Flunder", "Fischer"]
OLD = "wardle.example.com/v1alpha1 %s is deprecated in v1.3+, unavailable in v1.10+"


class FlunderStatus(Model):
    """Nothing is known of a flunder."""


class AlphaSpec(Model):
    reference: str | None = None
    """A name of another flunder or fischer, depending on the reference type."""
    reference_type: ReferenceType | None = None
    """The reference type, defaults to "Flunder" if reference is set."""


class BetaSpec(Model):
    flunder_reference: str | None = None
    """A name of another flunder, mutually exclusive to the fischer reference."""
    fischer_reference: str | None = None
    """A name of a fischer, mutually exclusive to the flunder reference."""
    reference_type: ReferenceType | None = None
    """The reference type."""


@app.kind(version="v1alpha1", status=False, deprecated=OLD % "Flunder")
class Flunder(Kind):
    """A flunder refers to another flunder or to a fischer."""

    spec: AlphaSpec = AlphaSpec()
    status: FlunderStatus = FlunderStatus()


@app.kind(version="v1beta1", kind="Flunder", storage_version=True)
class FlunderBeta(Kind):
    """A flunder refers to another flunder or to a fischer."""

    spec: BetaSpec = BetaSpec()
    status: FlunderStatus = FlunderStatus()


@app.kind(version="v1alpha1", scope="Cluster", deprecated=OLD % "Fischer")
class Fischer(Kind):
    """A fischer keeps some flunders away."""

    disallowed_flunders: list[str] = []
    """Names of flunders that are not allowed."""


@app.default(Flunder)
def default_reference_type(obj: Flunder) -> None:
    if obj.spec.reference and not obj.spec.reference_type:
        obj.spec.reference_type = "Flunder"


@app.convert(Flunder, FlunderBeta)
def to_beta(old: Flunder) -> FlunderBeta:
    spec = BetaSpec()
    if old.spec.reference_type is not None:
        spec.reference_type = old.spec.reference_type
    if old.spec.reference and old.spec.reference_type == "Fischer":
        spec.fischer_reference = old.spec.reference
    elif old.spec.reference:
        spec.flunder_reference = old.spec.reference
    return FlunderBeta(metadata=old.metadata, spec=spec, status=old.status)


@app.convert(FlunderBeta, Flunder)
def to_alpha(new: FlunderBeta) -> Flunder:
    spec = AlphaSpec()
    if new.spec.reference_type is not None:
        spec.reference_type = new.spec.reference_type
    reference = new.spec.fischer_reference if new.spec.reference_type == "Fischer" else new.spec.flunder_reference
    if reference:
        spec.reference = reference
    return Flunder(metadata=new.metadata, spec=spec, status=new.status)


@app.validate(FlunderBeta)
def one_reference_of_the_right_type(new: FlunderBeta, old: FlunderBeta | None, ctx: RequestContext) -> None:
    spec = new.spec
    flunder, fischer = spec.flunder_reference or "", spec.fischer_reference or ""
    if flunder and fischer:
        raise Invalid("spec.fischerReference", fischer, "cannot be set with flunderReference at the same time")
    if flunder and spec.reference_type != "Flunder":
        raise Invalid("spec.flunderReference", flunder, "cannot be set if referenceType is not Flunder")
    if fischer and spec.reference_type != "Fischer":
        raise Invalid("spec.fischerReference", fischer, "cannot be set if referenceType is not Fischer")
    if spec.reference_type == "Fischer" and not fischer:
        raise Invalid("spec.fischerReference", fischer, "cannot be empty if referenceType is Fischer")
    if spec.reference_type == "Flunder" and not flunder:
        raise Invalid("spec.flunderReference", flunder, "cannot be empty if referenceType is Flunder")


@app.validate(Flunder)
def the_same_for_the_older_version(new: Flunder, old: Flunder | None, ctx: RequestContext) -> None:
    one_reference_of_the_right_type(to_beta(new), None, ctx)


@app.admit(FlunderBeta)
def ban(obj: FlunderBeta | None, old: FlunderBeta | None, ctx: RequestContext) -> None:
    """Admission on create: a name that any fischer disallows is refused."""
    if obj is None or old is not None:
        return
    if any(obj.metadata.name in fischer.disallowed_flunders for fischer in app.objects(Fischer)):
        raise Forbidden("this name may not be used, please change the resource name")
