//! What AWS and its SDK say went wrong, in words of ours: theirs may quote what was sent or answered.

use std::error::Error;
use std::io;
use std::time::{Duration, SystemTime};

use aws_config::imds::client::error::ImdsError;
use aws_config::meta::{ProviderAttempt, ProviderChainError};
use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_sts::operation::assume_role::AssumeRoleError;
use aws_sdk_sts::operation::assume_role_with_web_identity::AssumeRoleWithWebIdentityError;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

use super::super::http::retry_after;
use super::super::{Failure, FailureKind};
use super::login::Source;
use super::setup::Setup;
use super::wire::{carried, causes};
use crate::report::{os_error, printable};

/// A request, for the words about it.
#[derive(Clone, Copy)]
pub(super) struct Request<'a> {
    /// The action, as policies have it: `secretsmanager:GetSecretValue`.
    pub(super) action: &'static str,
    pub(super) region: &'a str,
    /// Where the credentials come from.
    pub(super) source: &'a Source,
}

/// An error that AWS answered. Of its message we look for what tells one case from another, and print nothing.
#[derive(Clone, Copy, Default)]
pub(super) struct Complaint<'a> {
    pub(super) code: &'a str,
    pub(super) message: &'a str,
    pub(super) status: u16,
    pub(super) retry_after: Option<Duration>,
    /// By how much our clock differs from the server's, if it is too much for a signature.
    pub(super) skew: Option<Duration>,
}

/// The longest difference of clocks that a signature survives is five minutes.
const TOO_MUCH: Duration = Duration::from_mins(4);

/// A request that failed.
pub(super) fn of_request<E>(request: Request, error: &SdkError<E, HttpResponse>) -> Failure
where
    E: ProvideErrorMetadata + Error + 'static,
{
    if let Some(failure) = carried(error) {
        return failure.clone();
    }
    match error {
        SdkError::ServiceError(context) => complaint(request, complained(context.err(), context.raw())),
        SdkError::ResponseError(context) => complaint(request, unread(context.raw())),
        SdkError::ConstructionFailure(_) => {
            let cause = format!("no request can be made for region {}", request.region);
            Failure::new(FailureKind::Misconfigured, cause)
                .hint("is it a region, and has the service the endpoint that is asked for in it?")
        }
        SdkError::TimeoutError(_) => unavailable("AWS did not answer in time"),
        _ => no_answer(),
    }
}

/// What AWS complained about.
fn complained<'a>(error: &'a impl ProvideErrorMetadata, answer: &HttpResponse) -> Complaint<'a> {
    Complaint { code: error.code().unwrap_or_default(), message: error.message().unwrap_or_default(), ..unread(answer) }
}

/// An answer of which the head alone is understood.
fn unread(answer: &HttpResponse) -> Complaint<'static> {
    let header = |name: &str| answer.headers().get(name);
    let date = header("date").and_then(|date| DateTime::from_str(date, Format::HttpDate).ok());
    let theirs = date.and_then(|date| SystemTime::try_from(date).ok());
    let difference = |theirs: SystemTime| {
        let ours = SystemTime::now();
        ours.duration_since(theirs).or_else(|_| theirs.duration_since(ours)).ok()
    };
    Complaint {
        status: answer.status().as_u16(),
        retry_after: header("retry-after").and_then(|header| retry_after(header.as_bytes())),
        skew: theirs.and_then(difference).filter(|skew| *skew > TOO_MUCH),
        ..Complaint::default()
    }
}

/// Whether AWS asks to be asked less often.
pub(super) fn is_throttling(code: &str, status: u16) -> bool {
    const CODES: &[&str] =
        &["Throttling", "ThrottlingException", "ThrottledException", "TooManyRequestsException", "RequestLimitExceeded", "SlowDown"];
    CODES.contains(&code) || status == 429
}

/// Whether AWS refuses an action to whom it knows.
pub(super) fn is_denial(code: &str) -> bool {
    matches!(code, "AccessDeniedException" | "AccessDenied" | "UnauthorizedOperation" | "NotAuthorized")
}

/// In words for the user: what is wrong, and what to try.
pub(super) fn complaint(request: Request, complaint: Complaint) -> Failure {
    let Request { action, region, source: Source { words: source, .. } } = request;
    let Complaint { code, message, status, retry_after, skew } = complaint;
    let denied = |cause: String| Failure::new(FailureKind::Denied, cause);
    let says = |words: &[&str]| words.iter().any(|word| message.contains(word));
    let has_ended =
        matches!(code, "ExpiredTokenException" | "ExpiredToken") || is_denial(code) && says(&["token included in the request is expired"]);
    let is_unknown = matches!(code, "UnrecognizedClientException" | "InvalidClientTokenId" | "InvalidAccessKeyId");
    if has_ended || is_unknown {
        request.source.give_up();
    }
    match code {
        "ResourceNotFoundException" if says(&["staging label", "VersionId", "version"]) => {
            let cause = format!("the secret has no such version or stage in {region}");
            Failure::new(FailureKind::NotFound, cause).hint("check ?stage= and ?version=; add ?optional=true if it may be missing")
        }
        "ResourceNotFoundException" | "ParameterNotFound" | "ParameterVersionNotFound" => not_found(region),
        _ if has_ended => denied(format!("the credentials have expired (credentials: {source})")).hint("get new ones; they are temporary"),
        _ if is_unknown => denied(format!("AWS does not know the access key (credentials: {source})"))
            .hint("is the key still active, is it one of this partition, and is AWS_SESSION_TOKEN set when the key is temporary?"),
        _ if is_denial(code) && says(&["KMS", "kms:", "ciphertext"]) => key(region),
        "DecryptionFailure" | "KMSAccessDeniedException" | "KMSInvalidStateException" | "InvalidKeyId" => key(region),
        _ if is_denial(code) => denied(format!("AWS denies {action} in {region}"))
            .hint("allow it for this secret; secret-init policy aws prints the policy that all of the plan needs"),
        "InvalidRequestException" if says(&["deleted", "deletion"]) => {
            Failure::new(FailureKind::NotFound, "the secret is marked for deletion")
                .hint("aws secretsmanager restore-secret brings it back")
        }
        "InvalidRequestException" => Failure::new(FailureKind::Invalid, "AWS cannot give the secret as it is")
            .hint("it may have no version with the stage that is asked for: aws secretsmanager describe-secret shows them"),
        "InvalidParameterException" | "ValidationException" | "ValidationError" => {
            Failure::new(FailureKind::Misconfigured, "AWS does not accept the name")
                .hint("are name, stage and version written as AWS writes them?")
        }
        _ if is_throttling(code, status) => {
            Failure::new(FailureKind::Unavailable { retry_after }, format!("AWS asks to be asked less often ({region})"))
        }
        "RequestTimeTooSkewed" | "RequestExpired" => clock(skew),
        "InvalidSignatureException" | "SignatureDoesNotMatch" | "AuthFailure"
            if skew.is_some() || says(&["expired", "not yet current"]) =>
        {
            clock(skew)
        }
        "InvalidSignatureException" | "SignatureDoesNotMatch" | "AuthFailure" => {
            denied(format!("the secret key does not belong to the access key (credentials: {source})"))
                .hint("check AWS_SECRET_ACCESS_KEY, or where it comes from")
        }
        "IncompleteSignature" | "IncompleteSignatureException" | "MissingAuthenticationToken" | "MissingAuthenticationTokenException" => {
            denied(format!("AWS does not accept the signature (credentials: {source})"))
                .hint("do the keys have characters that do not belong there, such as a newline?")
        }
        "OptInRequired" | "NotSignedUp" | "SubscriptionRequiredException" => {
            denied(format!("the account may not use the service in {region}")).hint("enable the region for the account, or ask another")
        }
        _ if status >= 500 => Failure::new(FailureKind::Unavailable { retry_after }, format!("AWS has an error of its own ({status})")),
        _ if status < 300 => no_answer(),
        _ => Failure::new(FailureKind::Protocol, format!("an answer that is not known{} ({status})", name_of(code)))
            .hint("is there AWS at its address?"),
    }
}

fn no_answer() -> Failure {
    Failure::new(FailureKind::Protocol, "the answer is none of AWS").hint("is its address right?")
}

/// The code of an error that is not known here, when it looks like one: it comes from outside.
fn name_of(code: &str) -> String {
    let is_code = code.len() <= 64 && code.bytes().all(|byte| byte.is_ascii_alphabetic());
    let is_code = is_code && ["Exception", "Error", "Failure", "Fault"].iter().any(|end| code.ends_with(end));
    if is_code { format!(": {code}") } else { String::new() }
}

pub(super) fn not_found(region: &str) -> Failure {
    Failure::new(FailureKind::NotFound, format!("no such secret in {region}"))
        .hint("check the name and the region; add ?optional=true or ?default=… if it may be missing")
}

fn key(region: &str) -> Failure {
    Failure::new(FailureKind::Denied, format!("AWS denies kms:Decrypt with the key of the secret in {region}"))
        .hint("allow kms:Decrypt on that key, in the policy and in the key's own, and see that the key is enabled")
}

fn clock(skew: Option<Duration>) -> Failure {
    let much = skew.map_or_else(String::new, |skew| format!(" by {} min", skew.as_secs().div_ceil(60)));
    Failure::new(FailureKind::Denied, format!("this machine's clock differs from AWS's{much}, too much for a signature"))
        .hint("set the clock of the machine that the container runs on")
}

fn unavailable(cause: &str) -> Failure {
    Failure::new(FailureKind::Unavailable { retry_after: None }, cause)
}

/// Nothing names a region.
pub(super) fn no_region() -> Failure {
    Failure::new(FailureKind::Misconfigured, "no region is known")
        .hint("name it: AWS_REGION, ?region= in the reference, region: of the store in the configuration, or in the profile")
}

/// What a profile or the instance names is none.
pub(super) fn wrong_region() -> Failure {
    Failure::new(FailureKind::Misconfigured, "what the profile or the instance has for a region is no region")
        .hint("regions are written like eu-central-1")
}

/// There are no credentials, or they could not be had.
pub(super) fn of_credentials(setup: &Setup, region: &str, error: &CredentialsError) -> Failure {
    let source = Source::new("the login");
    let request = |action| Request { action, region, source: &source };
    if let Some(chain) = error.source().and_then(|source| source.downcast_ref::<ProviderChainError<CredentialsError>>()) {
        let instance = chain.attempts().iter().find(|attempt| attempt.name() == "Ec2InstanceMetadata").map(ProviderAttempt::error);
        return no_credentials(
            setup,
            match instance {
                Some(error) if carried(error).is_some() => {
                    "the instance's metadata, which did not answer (on EC2 a container on a bridge needs HttpPutResponseHopLimit 2)"
                }
                Some(_) if setup.variable("AWS_EC2_METADATA_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) => {
                    "but not the instance's metadata, which AWS_EC2_METADATA_DISABLED forbids"
                }
                _ => "the instance's metadata, which has no role",
            },
        );
    }
    if let Some(failure) = carried(error) {
        return Failure { cause: format!("no credentials: {}", failure.cause), ..failure.clone() };
    }
    let role = printable(setup.variable("AWS_ROLE_ARN").unwrap_or_default().as_bytes()).into_owned();
    for cause in causes(error) {
        if let Some(error) = cause.downcast_ref::<SdkError<AssumeRoleWithWebIdentityError, HttpResponse>>() {
            return web_identity(&role, request("sts:AssumeRoleWithWebIdentity"), error);
        }
        if let Some(error) = cause.downcast_ref::<SdkError<AssumeRoleError, HttpResponse>>() {
            let failure = of_request(request("sts:AssumeRole"), error);
            return match failure.kind {
                FailureKind::Denied => {
                    failure.hint("is the role_arn of the profile right, and does the role's trust policy name who asks?")
                }
                _ => failure,
            };
        }
        if let Some(error) = cause.downcast_ref::<ImdsError>() {
            return match error {
                ImdsError::ErrorResponse(context) if context.response().status().is_server_error() => {
                    unavailable("the instance's metadata has an error of its own")
                }
                _ => no_credentials(setup, "the instance's metadata, which refuses"),
            };
        }
        if let Some(error) = cause.downcast_ref::<io::Error>() {
            return Failure::new(FailureKind::Misconfigured, format!("a file of the credentials cannot be read: {}", os_error(error)))
                .hint("see what AWS_WEB_IDENTITY_TOKEN_FILE and AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE name");
        }
    }
    let words = error.source().map(ToString::to_string).unwrap_or_default();
    match error {
        CredentialsError::InvalidConfiguration(_) if words.contains("cargo feature") => {
            Failure::new(FailureKind::Misconfigured, "the profile logs in by SSO or by a command")
                .hint("that is for people; give the container a role, or keys")
        }
        CredentialsError::InvalidConfiguration(_) if words.contains("ProfileFile") => {
            Failure::new(FailureKind::Misconfigured, "the profile cannot be used")
                .hint("see the files that AWS_CONFIG_FILE and AWS_SHARED_CREDENTIALS_FILE name")
        }
        CredentialsError::InvalidConfiguration(_) if words.contains("URI") => {
            Failure::new(FailureKind::Misconfigured, "the address of the container's credentials may not be asked")
                .hint("AWS_CONTAINER_CREDENTIALS_FULL_URI is https, or one of this machine, of ECS or of EKS")
        }
        CredentialsError::InvalidConfiguration(_) => Failure::new(FailureKind::Misconfigured, "the login to AWS is not set up well")
            .hint("see the variables AWS_*, and the trust policy of the instance's role"),
        _ if words.contains("StatusCode(5") => unavailable("who has the container's credentials has an error of its own"),
        CredentialsError::Unhandled(_) => Failure::new(FailureKind::Protocol, "the answer of who has the credentials holds none")
            .hint("is it ECS, EKS or EC2 that answers at that address?"),
        _ => Failure::new(FailureKind::Denied, "who has the credentials refuses them")
            .hint("see the role of the task, the pod or the instance"),
    }
}

/// All were tried, and none has credentials.
fn no_credentials(setup: &Setup, metadata: &str) -> Failure {
    const TRIED: &str =
        "tried: AWS_ACCESS_KEY_ID, a profile, AWS_WEB_IDENTITY_TOKEN_FILE, AWS_CONTAINER_CREDENTIALS_RELATIVE_URI and _FULL_URI";
    let profile = setup
        .variable("AWS_PROFILE")
        .map_or_else(String::new, |name| format!("; the profile {} is not in the files", printable(name.as_bytes())));
    Failure::new(FailureKind::Denied, format!("there are no credentials for AWS{profile}")).hint(format!("{TRIED}, {metadata}"))
}

fn web_identity(role: &str, request: Request, error: &SdkError<AssumeRoleWithWebIdentityError, HttpResponse>) -> Failure {
    let code = match error {
        SdkError::ServiceError(context) => context.err().code().unwrap_or_default(),
        _ => "",
    };
    match code {
        _ if is_denial(code) => Failure::new(FailureKind::Denied, format!("AWS denies the role {role} to the web identity"))
            .hint("the role's trust policy has to name the identity provider, the audience and the service account"),
        "InvalidIdentityToken" | "IDPRejectedClaim" | "ExpiredTokenException" => {
            Failure::new(FailureKind::Denied, "AWS does not accept the web identity's token")
                .hint("is AWS_WEB_IDENTITY_TOKEN_FILE kept fresh, and its issuer an identity provider of the account?")
        }
        "IDPCommunicationError" => unavailable("AWS could not reach the web identity's provider"),
        _ => of_request(request, error),
    }
}
