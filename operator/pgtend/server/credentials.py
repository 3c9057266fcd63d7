"""A credential of a target's spec and its Secret become a login; what is missing there is a reason of its own."""

from __future__ import annotations

from pgtend.api.postgrestarget import Credential, Tls
from pgtend.api.reasons import TargetReason
from pgtend.core.errors import PgtendError
from pgtend.core.redaction import Sensitive
from pgtend.kube.client import Forbidden
from pgtend.kube.secrets import Secrets
from pgtend.postgres.login import Login


async def value(secrets: Secrets, *, namespace: str, name: str, key: str, fresh: bool = False) -> Sensitive:
    """One value of a Secret. Raises PgtendError SecretForbidden, SecretMissing or SecretKeyMissing."""
    try:
        data = await secrets.get(namespace, name, fresh=fresh)
    except Forbidden as error:
        raise PgtendError(
            TargetReason.SECRET_FORBIDDEN,
            f"Secret {name} in namespace {namespace} may not be read: give the operator's account get on it"
            f" ({error.message[:200]})",
            object=name,
        ) from None
    if data is None:
        raise PgtendError(
            TargetReason.SECRET_MISSING,
            f"Secret {name} does not exist in namespace {namespace}: create it",
            object=name,
        )
    found = data.values.get(key)
    if found is None or not found.reveal():
        raise PgtendError(
            TargetReason.SECRET_KEY_MISSING, f"Secret {name} has no key {key}: add it or name another", object=name
        )
    return found


async def login(
    secrets: Secrets, *, namespace: str, purpose: str, credential: Credential, fresh: bool = False
) -> Login:
    """The login of one purpose (`monitor`, `users`, ...). Raises PgtendError as `value` does."""
    user = credential.username or f"pgtend_{purpose}"
    if credential.password is not None:
        ref = credential.password.secret_ref
        found = await value(secrets, namespace=namespace, name=ref.name, key=ref.key or "password", fresh=fresh)
        stripped = found if not found.reveal().endswith("\n") else Sensitive(found.reveal().rstrip("\n"))
        return Login(user=user, password=stripped, allow_md5=credential.password.method == "Md5")
    if credential.client_certificate is None:
        raise PgtendError(
            TargetReason.INVALID_SPEC, f"credentials.{purpose} has neither password nor clientCertificate"
        )
    name = credential.client_certificate.secret_ref.name
    pair = [
        await value(secrets, namespace=namespace, name=name, key=key, fresh=fresh) for key in ("tls.crt", "tls.key")
    ]
    return Login(user=user, certificate=(pair[0], pair[1]))


async def certificate_authority(secrets: Secrets, *, namespace: str, tls: Tls) -> str | None:
    """The CA's certificate as PEM, or None where the spec names none."""
    if tls.ca is None:
        return None
    ref = tls.ca.secret_ref
    found = await value(secrets, namespace=namespace, name=ref.name, key=ref.key or "ca.crt")
    return found.reveal()
