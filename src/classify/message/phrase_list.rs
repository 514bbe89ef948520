//! The phrases that give a message its meaning, grouped by meaning.
//!
//! Phrases are in lower case and match at the start of a word. A space matches a space, a line end, `-` or `_`. The
//! order does not matter: the longest phrase at a position counts.
//!
//! The words *quota*, *billing*, *plan* and *credit* alone do not mean that a quota is exhausted, because several
//! providers use them for a limit per minute. A whole phrase is needed, or a noun with a verb near it
//! ([`spent`](crate::classify::message::spent)).

use crate::classify::Scope;
use crate::classify::Scope::{DailyRequests, DailyTokens, Images, InputTokens, OutputTokens, Requests, Tokens};
use Sign::*;

/// The meaning of a phrase.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Sign {
    /// The account's plan, budget or balance is exhausted.
    Account,
    /// A quota is exhausted, perhaps of one model only. It does not count if the message states that the quota resets
    /// soon.
    Stop,
    /// A quota is exhausted. It does not count if the message also names a short window or states a delay, or if a code
    /// means a rate limit.
    StopWeak,
    /// An amount of money: a balance, credits.
    Money,
    /// An allowance of a plan.
    Allowance,
    /// A verb that means exhausted.
    Spent,
    /// A window of a week or a month.
    Month,
    /// A window of a week or a month, if the limited unit follows: `monthly token quota`, but not `monthly plan`.
    Periodic,
    /// The limit of a plan per some hours, if a number precedes: `5-hour limit`.
    PlanHours,
    /// No meaning. It prevents a match of a shorter phrase.
    Nothing,
    /// The server has no capacity.
    Overload,
    /// Too many concurrent requests.
    Concurrent,
    /// The request alone exceeds the limit.
    TooLarge,
    /// A rate limit was exceeded.
    Rate,
    /// The server failed.
    ServerFault,
    /// A window of a day.
    Daily,
    /// Requests or tokens enqueued in batches.
    Enqueued,
    /// A window follows.
    Per,
    /// A short window: `this minute`.
    This,
    /// The name of the counted unit follows.
    LimitType,
    /// A counted unit. Its window may follow.
    Unit(Scope),
    /// A counted unit with its window.
    Short(Scope),
    /// A delay or a date follows.
    Delay,
    /// A delay precedes.
    DelayBefore,
    /// The size of the limit follows.
    Limit,
    /// The used amount follows.
    Used,
    /// The cost of the request follows.
    Requested,
    /// The used amount and the limit follow.
    Pair,
    /// A model's name follows.
    Model,
    /// A model's name precedes.
    ModelBefore,
}

#[rustfmt::skip]
pub(crate) const PHRASES: &[(Sign, &[&str])] = &[
    (Account, &[
        "account is in arrears", "account is not active", "account not active", "all available credits",
        "api usage limits", "billing hard limit", "billing is not active", "billing not active", "budget exceeded",
        "budget has been exceeded", "budget limit", "check your billing", "credit limit reached for your account",
        "daily budget", "exceeded budget", "exceeded its budget", "exceeded the budget", "exceeded your budget",
        "exceeded your monthly included credits", "exceeds budget", "guthaben aufgebraucht", "in arrears",
        "max budget", "membership expired", "membership has expired", "monthly budget", "monthly included credits",
        "monthly usage limit", "no active subscription", "no credits", "no resource package",
        "out of call volume quota", "over budget", "overdue", "package has expired", "payment required",
        "plan has expired", "prepaid credit", "requires more credits", "saldo insuficiente", "solde insuffisant",
        "specified api usage limits", "spend cap", "spend limit", "spending cap", "spending limit",
        "subscription expired", "subscription has ended", "subscription has expired", "subscription has lapsed",
        "subscription is inactive", "subscription is not active", "subscription lapsed", "trial ended",
        "trial expired", "trial has ended", "trial has expired", "trial is over", "trial period has ended",
        "trial period has expired", "weekly budget", "资源包已用完", "资源包已耗尽", "资源包已用尽", "余额为零", "余额不足",
        "余额已用完", "余额已用尽", "余额已耗尽", "余额用尽", "余额耗尽", "餘額不足", "欠费", "欠費", "套餐已过期", "残高不足", "残高が不足", "クレジットが不足", "잔액 부족",
        "잔액이 부족", "크레딧이 부족", "едостаточно средств", "套餐已到期", "预扣费额度失败", "费用限额", "费用限制",
    ]),
    (Stop, &[
        "allowance for the month", "come back tomorrow", "cost limit", "daily free allocation",
        "free allocated quota", "free allocation", "free models per day", "free quota",
        "free tier of the model has been exhausted", "free tier quota exhausted", "free usage quota",
        "has run out of", "hit your session limit", "hit your usage limit", "hit your weekly limit",
        "hour allocated quota", "key limit exceeded (daily limit", "key limit exceeded (monthly limit",
        "key limit exceeded (total limit", "key limit exceeded (weekly limit", "lifetime limit",
        "month allocated quota", "monthly limit", "monthly quota", "monthly usage quota",
        "per day per user per tier", "plan usage limit", "premium request allowance",
        "quota has been exhausted for this month", "reached your usage limit", "reached your weekly",
        "resets tomorrow", "session limit reached", "session quota", "session usage limit", "today's limit",
        "today's quota", "today's request limit", "today's token limit", "today's usage", "todays quota",
        "total usage limit", "try again next month", "try again next week", "try again tomorrow", "try tomorrow",
        "until next month", "until tomorrow", "usage limit exceeded", "usage limit has been reached",
        "usage limit reached", "used up your daily", "week allocated quota", "weekly limit", "weekly quota",
        "weekly usage limit", "weekly usage quota", "余量不足", "次数不足", "点数不足", "积分不足", "流量不足", "免费额度", "无可用资源包", "額度不足",
        "額度已用盡", "額度已用完", "额度不足", "额度已用完", "额度已用尽", "额度已耗尽", "额度已达上限", "额度用尽", "额度用完", "额度耗尽", "配额已用完", "配额已用尽",
        "配额已耗尽", "配额用尽", "配额耗尽", "达到每日使用上限", "达到每周", "达到每月", "达到本月", "达到本周", "今日额度", "今日配额", "今日请求次数", "今日次数",
        "当日额度", "当日配额", "本月额度", "本月配额", "本周额度", "小时的使用上限", "小时使用上限", "小时用量上限", "明天再试", "明日再试", "次日再试", "次数已用完",
        "次数已用尽", "次数已达上限", "日流控",
    ]),
    (StopWeak, &[
        "account limit reached", "at midnight", "daily limit", "daily quota", "daily request limit",
        "daily requests limit", "daily token limit", "daily usage limit", "exceeded current quota",
        "exceeded the current quota", "exceeded your current quota", "exceeded your quota for today",
        "exceeded your usage limit", "exhausted your capacity", "for today", "insufficient quota",
        "key limit exceeded", "limit exhausted", "please recharge", "quota has been reached", "quota reached",
        "recharge your account", "top up your account", "已用完", "已用尽", "已耗尽",
        "已经用完", "已经用尽", "已经耗尽", "充值", "每日", "配额不足", "使用上限", "用量上限",
    ]),
    // Nouns for money, nouns for allowances, and verbs that say that either is exhausted.
    (Money, &["balance", "credit", "credits", "funds", "prepayment", "wallet", "余额"]),
    (Allowance, &["allocation", "allotment", "allowance", "quota", "quotas", "usage limit"]),
    (Spent, &[
        "all been consumed", "all used", "been consumed", "below zero", "depleted", "empty", "exhausted", "expired",
        "fully used", "has ended", "have ended", "insufficient", "is negative", "is zero", "no longer has",
        "no more", "no remaining", "not enough", "out of", "ran out", "run out", "too low", "used all", "used up",
    ]),
    (Periodic, &["annual", "monthly", "weekly", "yearly"]),
    (Month, &[
        "billing cycle", "billing period", "each month", "for the month", "for the week",
        "of the month", "per month", "per week", "per year", "this month", "this week", "当月",
        "本月", "每月",
    ]),
    (PlanHours, &[
        "day allowance", "day limit", "day quota", "day usage", "day window", "hour allowance", "hour limit",
        "hour quota", "hour usage", "hour window", "hours limit",
    ]),
    // Phrases without a meaning that contain one of the others.
    (Nothing, &[
        "account balance api", "coding plan", "insufficient access", "insufficient permission",
        "insufficient privilege", "insufficient scope", "monthly billing", "monthly plan", "monthly subscription",
        "token count api", "token plan",
    ]),
    (Overload, &[
        "all workers", "at capacity", "at full capacity", "at maximum capacity", "busy", "capacity available",
        "capacity constraint", "capacity exceeded", "capacity has been exceeded", "capacity has been reached",
        "capacity is", "capacity limit", "capacity reached", "capacity temporarily", "cold start",
        "exceeded capacity", "extreme load", "heavy demand", "heavy load", "heavy traffic", "high demand",
        "high load", "high traffic", "increased demand", "increased load", "insufficient capacity",
        "is currently loading", "is loading", "lack of capacity", "limited capacity", "maximum pending requests",
        "model is not ready", "no available accounts", "no available channel", "no available instance",
        "no available workers", "no capacity", "no healthy", "no workers", "not enough capacity", "not ready",
        "out of capacity", "overload", "overloaded", "peak load", "pending requests", "queue exceeded", "queue full",
        "queue has exceeded", "queue is full", "queue length", "queue limit", "rate limited upstream",
        "ratelimited upstream", "reduced capacity", "request queue", "resource exhausted. please try again later",
        "resource has been exhausted. please try again later", "resource unavailable", "resources are tight",
        "service unavailable", "shared pool", "still being loaded", "surge", "temporarily unable",
        "temporarily unavailable", "traffic is currently high", "traffic is high", "unavailable due to",
        "under heavy", "under pressure", "unexpected load", "unusually high", "upstream rate limit",
        "upstream saturated", "warming up", "拥挤", "繁忙", "访问量过大", "访问量较大", "负载", "过载", "饱和", "无可用渠道", "混雑", "過負荷",
    ]),
    (Concurrent, &[
        "active requests", "at once", "at the same time", "concurren", "in flight", "in parallel", "inflight",
        "number of connections", "open connections", "parallel request", "requests at a time", "running requests",
        "simultaneous", "too many connections", "并发", "併發", "並發", "同时请求", "同時",
    ]),
    (TooLarge, &[
        "context length exceeded", "context window", "input is too long", "max tokens is too large",
        "maximum context length", "prompt is too long", "prompt too long", "request exceeds the maximum tokens",
        "request exceeds the token", "request is too large", "request too large", "request was too large",
        "requested too many tokens", "single request exceeds",
    ]),
    (Rate, &[
        "increased too quickly", "rate exceeded", "rate limit", "ratelimit", "request frequency",
        "request too frequent", "requests are too frequent", "slow down", "throttl", "too fast", "too frequently",
        "too many call", "too many request", "too quickly", "请求过于频繁", "请求数限制", "请求次数过多", "過於頻繁", "流控", "速率", "限流",
        "频率", "过快",
    ]),
    (ServerFault, &["internal error", "internal server error", "server had an error"]),
    (Daily, &["24 hours", "24h", "daily", "per day", "perday", "今日", "每天"]),
    (Enqueued, &["enqueued"]),
    (Per, &["per "]),
    (This, &["current minute", "this hour", "this minute", "this second"]),
    (LimitType, &["limit type", "rate limit type"]),
    (Unit(Requests), &[
        "call", "calls", "generations", "messages", "models", "prompts", "queries", "query", "request", "requests",
    ]),
    (Unit(Tokens), &["request tokens", "token", "tokens"]),
    (Unit(InputTokens), &["input token", "input tokens", "prompt token", "prompt tokens"]),
    (Unit(OutputTokens), &[
        "completion token", "completion tokens", "generated tokens", "output token", "output tokens",
    ]),
    (Unit(Images), &["image", "images", "input images"]),
    (Short(Requests), &["qpm", "qps", "rph", "rpm", "rps", "请求速率", "请求频率", "调用频率"]),
    (Short(Tokens), &["tpm", "tps"]),
    (Short(InputTokens), &["itpm"]),
    (Short(OutputTokens), &["otpm"]),
    (Short(Images), &["ipm"]),
    (Short(DailyRequests), &["qpd", "rpd"]),
    (Short(DailyTokens), &["neurons", "tpd"]),
    (Delay, &[
        "again after", "again in", "again on", "available after", "available again after", "available again at",
        "available again in", "available again on", "available at", "available in", "available on", "back at",
        "back in", "back off for", "backoff for", "cooldown", "cooldown of", "cooldown period", "cooling down for",
        "de nuevo en", "es in", "essayer dans", "lifted at", "lifted in", "limit reached|", "next reset",
        "novamente em", "opens at", "opens in", "possible at", "possible in", "refresh at", "refresh in",
        "refreshed after", "refreshed at", "refreshed in", "refreshed on", "refreshes at", "refreshes in",
        "replenish in", "replenished in", "replenishes in", "reset after", "reset at", "reset in", "reset on",
        "reset time", "reset within", "resets after", "resets at", "resets in", "resets on", "resets within",
        "resetting in", "restored at", "restored in", "resume at", "resume in", "retry after", "retry at",
        "retry in", "retry it after", "retry it in", "retryafter", "retrydelay", "retrying after", "retrying in",
        "soonest reset", "time remaining", "try after", "try again after", "try again at", "try again in",
        "try again on", "try again within", "try in", "unlocked at", "unlocked in", "unlocks at", "unlocks in",
        "until", "wait", "wait a further", "wait about", "wait another", "wait at least", "wait for",
        "wait for about", "wait until", "через", "可用时间", "将于", "将在", "将会在", "恢复时间", "等待", "请于", "请在", "请等待", "請在",
        "重置时间", "重试时间", "预计",
    ]),
    (DelayBefore, &[
        "before next", "before retry", "before sending", "before trying", "before you", "left until",
        "remaining until", "until next", "until reset", "until the limit", "until your", "后再试", "后再次", "后可用", "后恢复",
        "后重新", "后重置", "后重试", "後再試", "後重試", "後に再試行", "後に", "후에 다시", "후 다시",
    ]),
    (Limit, &["limit", "limited to", "max", "max request", "max requests", "max rpm", "max tpm", "maximum", "最多请求"]),
    (Used, &["actual", "current", "current usage", "currently", "usage", "used"]),
    (Requested, &["requested"]),
    (Pair, &["actual/limit", "current/limit", "requested/limit", "usage/limit", "used/limit"]),
    (Model, &[
        "exceeded for", "for model", "limit for", "model", "quota for", "reached for", "requests to",
        "too large for",
    ]),
    (ModelBefore, &["is currently overloaded", "is overloaded", "is temporarily"]),
];
