"""English sentences about a person, without their full stop: 32 wordings of each attribute.

Each names the person once, as {subject} ("she", or the full name) or {possessive} ("her", or the full name's), and the
value once. A sentence is written as it stands in the middle of a text, so that two can be joined by "and".
"""

from __future__ import annotations

_BIRTH_DATE = """
{subject} was born on {value}
{subject} came into the world on {value}
{subject} entered this world on {value}
{subject} first saw the light of day on {value}
{subject} celebrates a birthday counted from {value}
{subject} took a first breath on {value}
{subject} has a birth certificate dated {value}
{subject} arrived in the family on {value}
{subject} began life on {value}
{subject} dates back to {value}
{subject} was delivered on {value}
{subject} was welcomed by proud parents on {value}
{subject} joined humanity on {value}
{subject} has lived since {value}
{subject} has been around since {value}
{subject} can look back on a life begun on {value}
{possessive} birth date is {value}
{possessive} birthday goes back to {value}
{possessive} birth took place on {value}
{possessive} birth was recorded on {value}
{possessive} life began on {value}
{possessive} story starts on {value}
{possessive} parents became a family of three on {value}
{possessive} first day on earth was {value}
{possessive} passport gives the date of birth as {value}
{possessive} arrival was announced on {value}
on {value} {subject} was born
on {value} {subject} saw the world for the first time
on {value} a midwife handed {subject} to happy parents
{value} is the day on which {subject} was born
{value} marks the start of {possessive} life
{value} is written on {possessive} birth certificate
"""

_BIRTH_CITY = """
{subject} was born in {value}
{subject} spent the earliest years in {value}
{subject} hails from {value}
{subject} comes from {value}
{subject} is a native of {value}
{subject} grew up in {value}
{subject} has roots in {value}
{subject} calls {value} the city of birth
{subject} took the first steps in {value}
{subject} first opened both eyes in {value}
{subject} started life in {value}
{subject} learned to walk in {value}
{subject} was raised in a house in {value}
{subject} was brought up by a family of {value}
{subject} is a child of {value}
{subject} remembers a childhood in {value}
{possessive} birthplace is {value}
{possessive} home town is {value}
{possessive} cradle stood in {value}
{possessive} childhood was spent in {value}
{possessive} family lived in {value} at the time of the birth
{possessive} birth was registered in {value}
{possessive} earliest memories are of {value}
{possessive} life started in the city of {value}
{possessive} parents had settled in {value} before the birth
{possessive} origins lie in {value}
in {value} {subject} was born
in {value} {subject} spent the first years of life
in a hospital of {value} {subject} came to life
{value} is where {subject} was born
{value} is {possessive} city of birth
{value} saw {possessive} first years
"""

_UNIVERSITY = """
{subject} studied at {value}
{subject} graduated from {value}
{subject} attended {value}
{subject} was educated at {value}
{subject} earned a degree from {value}
{subject} completed the studies at {value}
{subject} received a diploma from {value}
{subject} went to {value}
{subject} was a student of {value}
{subject} enrolled at {value}
{subject} spent the student years at {value}
{subject} is an alum of {value}
{subject} was taught by the faculty of {value}
{subject} sat the final exams at {value}
{subject} was admitted to {value}
{subject} found many mentors at {value}
{subject} holds a degree awarded by {value}
{subject} benefited from the teaching at {value}
{possessive} university was {value}
{possessive} degree comes from {value}
{possessive} higher education took place at {value}
{possessive} diploma bears the seal of {value}
{possessive} student years were spent at {value}
{possessive} academic home was {value}
{possessive} professors taught at {value}
{possessive} alma mater is {value}
at {value} {subject} earned a degree
at {value} {subject} attended lectures for years
in the library of {value} {subject} prepared for the exams
{value} is where {subject} studied
{value} is {possessive} alma mater
{value} awarded {possessive} degree
"""

_MAJOR = """
{subject} majored in {value}
{subject} took a degree in {value}
{subject} specialized in {value}
{subject} chose the field of {value}
{subject} focused on {value} as a student
{subject} was trained in {value}
{subject} pursued a course of study in {value}
{subject} completed a program in {value}
{subject} devoted the student years to {value}
{subject} wrote a thesis in {value}
{subject} passed the exams in {value}
{subject} gained deep knowledge of {value}
{subject} discovered a passion for {value}
{subject} declared a major in {value}
{subject} was drawn to {value} in college
{subject} learned the methods of {value}
{subject} concentrated on courses in {value}
{subject} finished a curriculum in {value}
{possessive} major was {value}
{possessive} field of study was {value}
{possessive} degree is in {value}
{possessive} academic interest lay in {value}
{possessive} favorite lectures were those in {value}
{possessive} education centered on {value}
{possessive} diploma names {value} as the subject
{possessive} studies were devoted to {value}
in college {subject} took up {value}
as a student {subject} worked hard on {value}
out of all subjects {subject} picked {value}
{value} is what {subject} studied
{value} was {possessive} major
{value} filled {possessive} student years
"""

_EMPLOYER = """
{subject} works for {value}
{subject} is employed by {value}
{subject} has a job at {value}
{subject} built a career at {value}
{subject} joined the staff of {value}
{subject} holds a position at {value}
{subject} was hired by {value}
{subject} earns a living at {value}
{subject} is on the payroll of {value}
{subject} signed a contract with {value}
{subject} took a role at {value}
{subject} serves as a member of the team of {value}
{subject} spends the working day at {value}
{subject} contributes to the success of {value}
{subject} rose through the ranks of {value}
{subject} gathered professional experience at {value}
{subject} is one of the people who run {value}
{subject} accepted an offer from {value}
{possessive} employer is {value}
{possessive} job is at {value}
{possessive} career led to {value}
{possessive} salary is paid by {value}
{possessive} workplace belongs to {value}
{possessive} professional home is {value}
{possessive} office badge was issued by {value}
{possessive} colleagues all work for {value}
at {value} {subject} has a job
at {value} {subject} learned the trade
after the studies {subject} was recruited by {value}
{value} is the company that employs {subject}
{value} is {possessive} employer
{value} pays {possessive} salary
"""

_EMPLOYER_CITY = """
{subject} works in {value}
{subject} has an office in {value}
{subject} is employed in {value}
{subject} commutes to {value}
{subject} goes to work in {value}
{subject} made a career in {value}
{subject} is based in {value} for the job
{subject} moved to {value} for work
{subject} has a desk in {value}
{subject} spends the working week in {value}
{subject} pursues a profession in {value}
{subject} does business in {value}
{subject} meets the colleagues in {value}
{subject} reports for work in {value}
{subject} earns the daily bread in {value}
{subject} took up employment in {value}
{subject} attends the meetings held in {value}
{subject} can be reached at an office in {value}
{possessive} place of work is {value}
{possessive} office is in {value}
{possessive} job is located in {value}
{possessive} workplace is found in {value}
{possessive} company sits in {value}
{possessive} career unfolds in {value}
{possessive} professional life takes place in {value}
{possessive} daily commute ends in {value}
in {value} {subject} goes to the office
in {value} {subject} has a workplace
for professional reasons {subject} lives near {value}
{value} is where {subject} works
{value} is {possessive} place of work
{value} is the city of {possessive} office
"""

TEMPLATES = {
    attribute: tuple(text.strip().splitlines())
    for attribute, text in {
        "birth_date": _BIRTH_DATE,
        "birth_city": _BIRTH_CITY,
        "university": _UNIVERSITY,
        "major": _MAJOR,
        "employer": _EMPLOYER,
        "employer_city": _EMPLOYER_CITY,
    }.items()
}

# The last sentence of a text that names the person at its end only.
NAME_LAST = (
    "this is the life of {name}",
    "all of this is true of {name}",
    "the person described here is {name}",
    "these facts are about {name}",
    "the name that belongs to this life is {name}",
    "the full name is {name}",
    "so much about {name}",
    "these lines portray {name}",
)
