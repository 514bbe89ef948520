//! The list of providers.

use super::{Dialect, Pricing};
use crate::vocabulary::Kind::{Concurrency, Overloaded, QuotaExhausted, RateLimited, ServerError, TooLarge};
use crate::vocabulary::Scope::{
    Concurrent, DailyRequests, EnqueuedTokens, Images, InputTokens, OutputTokens, Requests, Tokens,
};

impl Dialect {
    /// Codes that several providers, gateways and self-hosted servers share.
    pub const GENERIC: Self = Self {
        name: "generic",
        pricing: Pricing::Larger,
        hosts: &[],
        marks: &[],
        codes: &[
            ("ratelimitexceeded", RateLimited, None),
            ("ratelimiterror", RateLimited, None),
            ("ratelimitreached", RateLimited, None),
            ("ratelimited", RateLimited, None),
            ("toomanyrequests", RateLimited, None),
            ("requests", RateLimited, Some(Requests)),
            ("tokens", RateLimited, Some(Tokens)),
            ("inputtokens", RateLimited, Some(InputTokens)),
            ("outputtokens", RateLimited, Some(OutputTokens)),
            ("images", RateLimited, Some(Images)),
            ("insufficientquota", QuotaExhausted, None),
            ("insufficientuserquota", QuotaExhausted, None),
            ("preconsumetokenquotafailed", QuotaExhausted, None),
            ("budgetexceeded", QuotaExhausted, None),
            ("paymentrequired", QuotaExhausted, None),
            ("overloaded", Overloaded, None),
            ("overloadederror", Overloaded, None),
            ("unavailable", Overloaded, None),
            ("capacity", Overloaded, None),
            ("servererror", ServerError, None),
            ("internalservererror", ServerError, None),
            ("internalerror", ServerError, None),
            ("apierror", ServerError, None),
            ("requesttoolarge", TooLarge, None),
        ],
    };

    /// OpenAI's API, and the ChatGPT plans used by Codex.
    pub const OPENAI: Self = Self {
        name: "openai",
        pricing: Pricing::Larger,
        hosts: &["api.openai.com", "chatgpt.com"],
        marks: &["openai.com"],
        codes: &[
            ("tokensusagebased", RateLimited, Some(Tokens)),
            ("inputimages", RateLimited, Some(Images)),
            ("dailyratelimitexceeded", RateLimited, Some(DailyRequests)),
            ("slowdown", RateLimited, None),
            ("tokenlimitexceeded", RateLimited, Some(EnqueuedTokens)),
            ("creditbalanceexhausted", QuotaExhausted, None),
            ("organizationspendlimitexceeded", QuotaExhausted, None),
            ("projectspendlimitexceeded", QuotaExhausted, None),
            ("organizationusagelimitexceeded", QuotaExhausted, None),
            ("billingnotactive", QuotaExhausted, None),
            ("billinghardlimitreached", QuotaExhausted, None),
            ("usagelimitreached", QuotaExhausted, None),
            ("usagenotincluded", QuotaExhausted, None),
            ("serverisoverloaded", Overloaded, None),
            ("serviceunavailableerror", Overloaded, None),
            ("engineoverloaded", Overloaded, None),
        ],
    };

    /// Azure OpenAI and Azure AI Foundry.
    pub const AZURE_OPENAI: Self = Self {
        name: "azure-openai",
        pricing: Pricing::Sum,
        hosts: &["openai.azure.com", "cognitiveservices.azure.com", "services.ai.azure.com"],
        marks: &["azure"],
        codes: &[("nocapacity", Overloaded, None), ("throttlingerror", RateLimited, None)],
    };

    /// Anthropic's API.
    pub const ANTHROPIC: Self = Self {
        name: "anthropic",
        pricing: Pricing::Larger,
        hosts: &["api.anthropic.com"],
        marks: &["anthropic"],
        codes: &[("enforcedspendlimitreached", QuotaExhausted, None), ("billingerror", QuotaExhausted, None)],
    };

    /// Google's Gemini API and Vertex AI.
    pub const GEMINI: Self = Self {
        name: "gemini",
        pricing: Pricing::Larger,
        hosts: &["generativelanguage.googleapis.com", "aiplatform.googleapis.com"],
        marks: &["googleapis"],
        codes: &[
            ("resourceexhausted", RateLimited, None),
            ("userratelimitexceeded", RateLimited, None),
            ("modelcapacityexhausted", Overloaded, None),
            ("internal", ServerError, None),
        ],
    };

    /// Groq.
    pub const GROQ: Self = Self {
        name: "groq",
        pricing: Pricing::Sum,
        hosts: &["api.groq.com"],
        marks: &["groq"],
        codes: &[("capacityexceeded", Overloaded, None)],
    };

    /// Mistral.
    pub const MISTRAL: Self = Self {
        name: "mistral",
        pricing: Pricing::Larger,
        hosts: &["api.mistral.ai"],
        marks: &["mistral"],
        codes: &[
            ("1300", RateLimited, None),
            ("3505", Overloaded, None),
            ("servicetiercapacityexceeded", Overloaded, None),
        ],
    };

    /// Cerebras. Its `quota` codes mean a limit per minute.
    pub const CEREBRAS: Self = Self {
        name: "cerebras",
        pricing: Pricing::Sum,
        hosts: &["api.cerebras.ai"],
        marks: &["cerebras"],
        codes: &[
            ("requestquotaexceeded", RateLimited, Some(Requests)),
            ("tokenquotaexceeded", RateLimited, Some(Tokens)),
            ("queueexceeded", Overloaded, None),
        ],
    };

    /// OpenRouter.
    pub const OPENROUTER: Self = Self {
        name: "openrouter",
        pricing: Pricing::Larger,
        hosts: &["openrouter.ai"],
        marks: &["openrouter"],
        codes: &[
            ("upstreamprovidersharedpool", Overloaded, None),
            ("openrouterfreetierdaily", QuotaExhausted, Some(DailyRequests)),
        ],
    };

    /// Zhipu and Z.ai.
    pub const ZHIPU: Self = Self {
        name: "zhipu",
        pricing: Pricing::Larger,
        hosts: &["open.bigmodel.cn", "api.z.ai"],
        marks: &["bigmodel"],
        codes: &[
            ("1302", RateLimited, None),
            ("1303", RateLimited, None),
            ("1313", RateLimited, None),
            ("1305", Overloaded, None),
            ("1312", Overloaded, None),
            ("1113", QuotaExhausted, None),
            ("1304", QuotaExhausted, None),
            ("1308", QuotaExhausted, None),
            ("1309", QuotaExhausted, None),
            ("1310", QuotaExhausted, None),
        ],
    };

    /// Moonshot.
    pub const MOONSHOT: Self = Self {
        name: "moonshot",
        pricing: Pricing::Larger,
        hosts: &["api.moonshot.cn", "api.moonshot.ai"],
        marks: &["moonshot"],
        codes: &[
            ("ratelimitreachederror", RateLimited, None),
            ("engineoverloadederror", Overloaded, None),
            ("exceededcurrentquotaerror", QuotaExhausted, None),
        ],
    };

    /// Alibaba's DashScope. Its `insufficient_quota` means a limit of tokens per minute.
    pub const DASHSCOPE: Self = Self {
        name: "dashscope",
        pricing: Pricing::Larger,
        hosts: &["dashscope.aliyuncs.com", "dashscope-intl.aliyuncs.com"],
        marks: &["aliyun", "alibabacloud", "dashscope", "allocated quota"],
        codes: &[
            ("insufficientquota", RateLimited, Some(Tokens)),
            ("throttlingratequota", RateLimited, Some(Requests)),
            ("limitrequests", RateLimited, Some(Requests)),
            ("limitburstrate", RateLimited, None),
            ("throttlingburstrate", RateLimited, None),
            ("throttlingallocationquota", RateLimited, Some(Tokens)),
            ("throttlingconcurrency", Concurrency, Some(Concurrent)),
            ("allocationquotafreetieronly", QuotaExhausted, None),
            ("throttlingallocationquotafreetieronly", QuotaExhausted, None),
            ("commoditynotpurchased", QuotaExhausted, None),
            ("prepaidbilloverdue", QuotaExhausted, None),
            ("postpaidbilloverdue", QuotaExhausted, None),
            ("arrearage", QuotaExhausted, None),
        ],
    };

    /// Volcano Engine's Ark and SenseNova.
    pub const ARK: Self = Self {
        name: "ark",
        pricing: Pricing::Larger,
        hosts: &["volces.com", "sensenova.cn"],
        marks: &["volces", "volcengine"],
        codes: &[
            ("requestbursttoofast", RateLimited, None),
            ("serveroverloaded", Overloaded, None),
            ("inflightbatchsizeexceeded", Concurrency, Some(Concurrent)),
            ("accountoverdueerror", QuotaExhausted, None),
            ("accountquotaexceeded", QuotaExhausted, None),
            ("setlimitexceeded", QuotaExhausted, None),
        ],
    };

    /// MiniMax. Its error responses have status 200.
    pub const MINIMAX: Self = Self {
        name: "minimax",
        pricing: Pricing::Larger,
        hosts: &["api.minimax.chat", "api.minimaxi.com", "api.minimax.io"],
        marks: &["minimax"],
        codes: &[
            ("1002", RateLimited, None),
            ("1039", RateLimited, Some(Tokens)),
            ("2045", RateLimited, Some(Requests)),
            ("2056", QuotaExhausted, None),
            ("1008", QuotaExhausted, None),
        ],
    };

    /// Baidu's Qianfan. Its error responses have status 200 and a short number in `error_code`.
    pub const BAIDU: Self = Self {
        name: "baidu",
        pricing: Pricing::Larger,
        hosts: &["aip.baidubce.com", "qianfan.baidubce.com"],
        marks: &["baidubce"],
        codes: &[
            ("errorcode18", RateLimited, Some(Requests)),
            ("errorcode17", QuotaExhausted, Some(DailyRequests)),
            ("errorcode19", QuotaExhausted, None),
            ("rpmratelimitexceeded", RateLimited, Some(Requests)),
            ("tpmratelimitexceeded", RateLimited, Some(Tokens)),
        ],
    };

    /// SiliconFlow.
    pub const SILICONFLOW: Self = Self {
        name: "siliconflow",
        pricing: Pricing::Larger,
        hosts: &["api.siliconflow.cn", "api.siliconflow.com"],
        marks: &["siliconflow"],
        codes: &[
            ("50602", RateLimited, Some(Tokens)),
            ("50603", RateLimited, Some(Requests)),
            ("50508", Overloaded, None),
            ("50609", Overloaded, None),
        ],
    };

    /// Cloudflare Workers AI.
    pub const CLOUDFLARE: Self = Self {
        name: "cloudflare",
        pricing: Pricing::Larger,
        hosts: &["api.cloudflare.com", "gateway.ai.cloudflare.com"],
        marks: &["cloudflare"],
        codes: &[("3040", Overloaded, None), ("4006", QuotaExhausted, None)],
    };

    /// Amazon Bedrock. The header `x-amzn-errortype` names the error class.
    pub const BEDROCK: Self = Self {
        name: "bedrock",
        pricing: Pricing::Larger,
        hosts: &["amazonaws.com"],
        marks: &["amazon"],
        codes: &[
            ("throttling", RateLimited, None),
            ("throttlingexception", RateLimited, None),
            ("throttledexception", RateLimited, None),
            ("requestthrottled", RateLimited, None),
            ("requestthrottledexception", RateLimited, None),
            ("toomanyrequestsexception", RateLimited, None),
            ("requestlimitexceeded", RateLimited, None),
            ("limitexceededexception", RateLimited, None),
            ("provisionedthroughputexceededexception", RateLimited, None),
            ("bandwidthlimitexceeded", RateLimited, None),
            ("serviceunavailable", Overloaded, None),
            ("serviceunavailableexception", Overloaded, None),
            ("modelstreamerrorexception", ServerError, None),
            ("modelnotreadyexception", Overloaded, None),
            ("servicequotaexceededexception", QuotaExhausted, None),
        ],
    };

    /// All dialects, the most common ones first.
    pub const ALL: &'static [&'static Self] = &[
        &Self::GENERIC,
        &Self::OPENAI,
        &Self::AZURE_OPENAI,
        &Self::ANTHROPIC,
        &Self::GEMINI,
        &Self::GROQ,
        &Self::MISTRAL,
        &Self::CEREBRAS,
        &Self::OPENROUTER,
        &Self::ZHIPU,
        &Self::MOONSHOT,
        &Self::DASHSCOPE,
        &Self::ARK,
        &Self::MINIMAX,
        &Self::BAIDU,
        &Self::SILICONFLOW,
        &Self::CLOUDFLARE,
        &Self::BEDROCK,
    ];
}
