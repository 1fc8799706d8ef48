"""Prompt extension: a language model writes a short prompt out into the detailed one that Wan expects.

Knows what to ask, an endpoint to ask, and whether an answer is a prompt; nothing of requests, Ray or torch.
"""

from wanray.prompts.answers import clean, extended, problem_of
from wanray.prompts.chat import ChatClient
from wanray.prompts.question import CutAnswerError, EndpointError, Extender, Question
from wanray.prompts.templates import LANGUAGES, template, template_digest

__all__ = [
    "LANGUAGES",
    "ChatClient",
    "CutAnswerError",
    "EndpointError",
    "Extender",
    "Question",
    "clean",
    "extended",
    "problem_of",
    "template",
    "template_digest",
]
