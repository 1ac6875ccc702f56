"""Words by which the scrubber tells names from what a report is about. Lists of words, so neither is complete."""

from __future__ import annotations


def word_list(text: str) -> list[str]:
    return text.split()


ORDINARY = frozenset(
    word_list("""
a abdomen abdominal able abnormal abnormality about above abscess absent accession acquired active acute addendum
address adenopathy admission admitted adrenal adult advised after afternoon again age aged aids air alert all allergy
also am american an anatomy and aneurysm angiogram angiography another anterior any aorta aortic ap apical apnea
appearance appears appendectomy appendix approximately apr april are area arms arterial artery arthritis as ascites
aspect assess assessment at atelectasis atrium attending aug august awake axial axilla axis back barium bases be
because been before befund being below benign between beurteilung bid bilateral biopsy birads birth bladder blood body
bolus bone bones bony bosniak both bowel brain breast breath breathing bronchial but by cabg cad calcification
calcified call called cancer cannot canon carcinoma cardiac cardiology cardiomegaly care case catheter cavity cc cecum
center central cervical change changes chest chf child children cholecystectomy chronic cirrhosis class clavicle clear
clinic clinical clinically clinician coccyx colectomy college colon compared comparison complains complaint complaints
complete conclusion condition congestion consent consented consistent consult contact contrast copd coronal coronary
correlate cortex costophrenic cough could course cr criteria ct cta cxr cyst cystic cysts data date day days death dec
deceased december decreased deep degenerative delayed demonstrated demonstrates denied denies department described
detected dexa diabetes diabetic diagnosis diaphragm did died diffuse dilatation dilated direct discharge discussed
disease disorder distal dm do dob doctor doctors does dorsal dose dotarem down dr drain duct due during dvt dyspnea ed
edema effusion either elderly elevated email embolism emergency emphysema end endotracheal english enhanced
enhancement enlarged er ercp ernst esophagus ett evaluate evaluation evening evidence exam examination examined ext
extension extensive extent external extremity face fall family fat fatty fax features feb february female femoral
femur fever few fibrosis fibula field film final finding findings first flank fleischner focal foci follow followed
following for fracture fractures free friday from function further gadavist gallbladder gallstone gas gastric
gastrografin ge gender general generally given gland glucose good grade granuloma great groin gross ground guidelines
habitus had has have having he head headache healed healthcare heart height hematoma hemidiaphragm hemithorax
hemorrhage hepatic her hernia herself hiatal high hila hilar him himself hip his history hitachi hiv hospital
hospitalised hospitalized hounsfield however htn hu humerus hypertension hypertensive i icu id if ii iii ileum image
images imaging impression improved in incidental included increased indeterminate indication inferior infiltrate
inflammation information informed injury inpatient instructed intact interstitial interval intervention into
intravenous intubated iohexol iopamidol is isovue it its iv ivc jan january joint jul july jun june junior kidney
kidneys knee known kub large last lat lateral leads leber left leg lesion lesions less level links lirads liver lll
lobe lobectomy lobes local location low lower lt lul lumbar lung lunge lungs lymph lymphadenopathy lymphoma magnevist
male malignancy malignant man mar march margin mass masses mastectomy may me measured measures measuring medial
mediastinal mediastinum medical medication medicine metastases metastasis metastatic middle mild mildly mine mm
moderate monday month months more morning most mother motion moved mr mra mrcp mri mrn multiple muscle my name nausea
near neck necrosis need needs neoplasm nephrectomy new newborn next ngt niere night no nodal node nodes nodular nodule
nodules non none noon normal not note noted notified nov november now npo nr num number numbers nurse nursing
obstruction obtained oct october of old omnipaque on oncology one only opacities opacity opinion or oral order organ
osseous other otherwise our out outpatient outside over overall pa pager pain painful pancreas pancreatic parenchyma
part partial past patella patient patientin patients pe pelvic pelvis pending percutaneous perforation perfusion
pericardial peritoneum pet phase philips phone physician picc place placement plain plan planned plaque plaques pleura
pleurae pleural pneumonia pneumothorax po polyp portal position positioned positive possible post posterior
postoperative pre pregnant preliminary presence present presented presenting presents previous previously primary
prior prn probable procedure process prominent prone prostate protocol provider proximal pt pulmonary pulse question
radiograph radiographs radiologist radiology radius re reactive read reason received recent rechts recommend
recommendation recommended rectum reduced ref reference referral referred referring region remains renal report
reported reporting reports request requested requisition resection resident residual resolution respiratory result
results review reviewed rf rib ribs right rll rml rotated rt rul rule sacrum sagittal said same samsung saturday scan
scanned scanner scans scapula scar sclerosis score second secondary section sedated see seen segment senior sep sept
september series service severe severely sex she short should shoulder show showed shows side siemens sign signed
significant signs since single sinus site size skin skull slice slight slightly small smoker smoking society soft
solid some spect spinal spine spleen splenectomy ssn stable staff stage staging standard stated states status stenosis
stent sternum still stomach stone stones structure structures studies study subcutaneous subpleural such sudden
suggest suggestive suggests summary sunday superior supine surgeon surgery surgical suspected suspicion suspicious svc
symptom symptoms syndrome system taken tb team technically technique technologist tel telephone test than that the
their them there therefore these they thickening third this thoracic thorax three thrombosis thrombus through thursday
thyroid tibia time tips tissue to today tolerated tomography toshiba total trachea transferred transplant transverse
trauma treated treatment tube tubes tuesday tumor tumour two type ulcer ulna ultrasound ultravist unable unchanged
under underwent unenhanced unit unknown unremarkable until up upper urea ureter urgent urinary urine us use used using
uterus uti valve vascular vasculature vein veins venous ventilated ventral ventricle vertebra vertebral very vessel
vessels via view views visible visipaque visit visualised visualized volume vs wall ward was we wednesday week weeks
weight well were when where which while who whose will window with within without woman work would wrist xr year years
yes yesterday you young your zone
""")
)
"""Lower-case words of reports that are no names."""

EPONYMS = frozenset(
    word_list("""
alzheimer ann arbor baker barrett bennett bochdalek boerhaave bosniak breslow budd calve caroli chance chiari child
clark cobb colles couinaud crohn cushing dandy down ellison ewing fallot fazekas fisher fleischner foley fort galeazzi
ganz garden gerota ghon gleason graves hampton hangman hansen harris hartmann hashimoto hess hill hirschsprung hodgkin
hounsfield hunt jefferson jones kaposi kerley kienbock killip klatskin kohler krukenberg langerhans lauge le legg
lemierre lisfranc looser luschka mallory marfan martin meckel meigs mirizzi monro monteggia morgagni morison murphy
osgood paget pancoast parkinson pellegrini perthes pott pugh rathke riedel rokitansky rolando sachs salter schatzki
scheuermann schlatter schmorl segond sever sjogren smith spetzler spigelian stieda swan sylvius takayasu tanner tietze
torus trendelenburg turner valsalva virchow waldenstrom walker warthin wegener weiss westermark whipple wilms wilson
zenker zollinger
""")
)
"""Names after which a sign, disease or class is called. They count as a person's only where something says
that one is meant."""

GIVEN = frozenset(
    word_list("""
aaron abdul abigail adam adrian ahmed aisha alan albert alejandro alex alexander alexandra alfred ali alice alicia
alison amanda amelia amy ana andrea andreas andrew andy angela angelo anita anna anne annie anthony antonio arthur
ashley barbara beatrice benjamin beth betty beverly brandon brenda brian bruce bryan camila carl carlos carmen
caroline carolyn catherine charles charlotte cheryl chris christina christine christopher cindy claire clara claudia
connor cynthia daniel daniela danielle david deborah debra denise dennis diana diane diego dmitri donald donna dorothy
douglas edward eileen elaine eleanor elena elizabeth ellen emily emma eric erika ernest esther ethan eugene eva evan
evelyn fatima felix fernando fiona francesca francis francisco frederick gabriel gary george gerald gloria gordon
gregory hannah hans harold harry hassan heather heidi helen helena henry howard hugo ian ibrahim ines irene isaac
isabel isabella ivan jacob jacqueline james jamie jane janet janice jason javier jean jeffrey jennifer jeremy jerry
jessica jesus jim joan joe johann john johnny jonathan jorge jose joseph joshua joyce juan judith julia julian julie
justin karen karl kate katherine kathleen kathryn katie keith kelly kenneth kevin kimberly klaus kyle larry laura
lauren lawrence lei leonard leslie li liam lilian linda lisa logan lorraine lucas lucia lucy luis luke madison manuel
marcus margaret maria marie marilyn mario marta martha mary mateo matthew maureen megan mei melissa michael michelle
miguel mohamed mohammad mohammed monica muhammad nancy natalie natasha nathan nicholas nicole nina noah nora norman
olga oliver olivia omar oscar pablo pamela patricia patrick paul paula pedro peter philip priya rachel rafael rajesh
ralph ramon raymond rebecca ricardo richard robert roberto rodrigo roger ronald rosa rosemary russell ruth ryan
salvador samantha samuel sandra sara sarah scott sean sergei sharon sheila shirley simon sofia sophia sophie stefan
stephanie stephen steven stuart susan suzanne sylvia tatiana teresa terry theodore theresa thomas tiffany timothy
tracy tyler ursula valerie vanessa veronica victoria vincent virginia vladimir walter wei wendy william wolfgang
yolanda yusuf yvonne zachary zoe
""")
)
"""Given names that no report uses for anything else. Others (May, Ray, Max, Frank, Iris, Mark, ...) are left out."""
